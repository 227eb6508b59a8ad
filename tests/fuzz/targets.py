"""
The fuzz targets: each takes bytes, and raises if the code does something undocumented.

They work with any engine that generates bytes; ``Reader`` derives texts and numbers from them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import unquote

from amqp.serialization import loads as decode_fields

from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.amqp.decoder import Decoder
from jsonrpc_amqp.amqp.frames import FrameError, Undecoded
from jsonrpc_amqp.amqp.tables import encode, read
from jsonrpc_amqp.dialects import Inbound, MalformedEnvelope
from jsonrpc_amqp.dialects.rabbitmq_java import JavaServer
from jsonrpc_amqp.dialects.recipe2011 import RecipeClient, RecipeServer
from jsonrpc_amqp.errors import EncodeError, InvalidName, MalformedReply, RemoteError
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.text import Malformed, dumps, loads
from jsonrpc_amqp.logs import _escaped
from jsonrpc_amqp.wire.authorization import authorizer
from jsonrpc_amqp.wire.display import printable, redact
from jsonrpc_amqp.wire.names import check_service, client_word, qid_of
from jsonrpc_amqp.wire.publish import Address
from jsonrpc_amqp.wire.reply_checks import ReplyChecks
from jsonrpc_amqp.wire.reply_route import reply_route
from jsonrpc_amqp.wire.sender_checks import refuse_sender

from ..headers import RAW, same
from . import peers
from .conversions import conversion
from .reader import Reader

Target = Callable[[bytes], None]


# -- dispatch -----------------------------------------------------------------------------------------------------

_called: list[str] = []


def _method(name: str) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        _called.append(name)
        if name == "fail":
            raise ValueError(args, kwargs)
        return [*args, kwargs]

    return method


_METHODS = {name: _method(name) for name in ("add", "a.b", "fail", "subtract")}
_METHODS["two"] = lambda a, b=1: (a, b)
_METHODS["pos"] = lambda a, /, *, b=1: (a, b)
_dispatcher = Dispatcher(_METHODS, max_size=1 << 16, max_batch=50, max_method=1 << 16)
_bounded = Dispatcher(
    _METHODS, max_size=1024, max_batch=3, max_depth=5, max_method=9, authorize=authorizer({"a*": "*"})
)


def dispatch(data: bytes) -> None:
    """Every body gets a JSON-RPC 2.0 response, or none if it is a notification."""
    _check_answer(_dispatcher(data), 1 << 16)
    _check_answer(_bounded(data), 1024)
    _check_answer(_dispatcher.reject_at_limit(data), 1 << 16)
    if len(data) <= 1024 and data.count(b",") < 50:
        assert (_dispatcher(data) is None) == messages.classify(data).is_notification
    assert set(_called) <= set(_METHODS)
    _called.clear()


def _check_answer(body: bytes | None, most: int) -> None:
    if body is None:
        return
    assert len(body) <= most
    value = json.loads(body.decode(), parse_constant=_no_constant)
    assert value != []
    for response in value if isinstance(value, list) else [value]:
        assert response["jsonrpc"] == "2.0"
        assert ("result" in response) != ("error" in response)
        assert not isinstance(response["id"], (bool, list, dict))
        if "error" in response:
            assert type(response["error"]["code"]) is int
            assert isinstance(response["error"]["message"], str)


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} was written")


# -- messages -----------------------------------------------------------------------------------------------------


def replies(data: bytes) -> None:
    """A reply yields a result, an error of the server, or a ``MalformedReply``."""
    for id in (1, "1", None, 1.5, "a.b"):
        with suppress(MalformedReply, RemoteError):
            messages.result_of(data, id)
    try:
        responses = messages.parse_batch(data, [1, "1", 1, 2])
    except MalformedReply:
        return
    assert len(responses) == 4


def jsontext(data: bytes) -> None:
    """JSON that was read can be written and read again without a change; all else is ``Malformed``."""
    try:
        value = loads(data)
    except Malformed:
        return
    json.loads(data.decode(), parse_constant=_no_constant)
    try:
        assert repr(loads(dumps(value))) == repr(value)
    except EncodeError as error:
        raise AssertionError("what was read cannot be written") from error


# -- names and keys -----------------------------------------------------------------------------------------------


def names(data: bytes) -> None:
    """Names are legal or raise ``InvalidName``; legal names make legal routing keys."""
    read = Reader(data)
    service, user = read.text(), read.maybe()
    try:
        word = client_word(user, "0123456789ab")
        address = Address("jsonrpc", check_service(service), word, user=user)
    except InvalidName:
        return
    assert not {".", "*", "#"} & set(word)
    qid = qid_of(read.choice(read.text(), read.number(9), -read.number(9), 1.5, None, [], True))
    assert 1 <= len(qid) <= 64
    assert not {".", "*", "#"} & set(qid)
    assert len(f"{address.reply_key}{qid}".encode()) <= 255


def routes(data: bytes) -> None:
    """A reply goes to an allowed queue or key, or nowhere; a sender is verified, or refused."""
    read = Reader(data)
    delivery = read.delivery()
    route = reply_route(delivery, service="S", exchange="jsonrpc", request_queues=("q",))
    if route is not None:
        assert len(route.routing_key.encode("utf-8", "surrogateescape")) <= 255
        if route.exchange:
            assert route == ("jsonrpc", delivery.routing_key.replace("S.request.", "S.response.", 1), True)
        else:
            name = route.routing_key
            assert name == delivery.reply_to
            assert not name.endswith(("_req", "_dead"))
            assert name.startswith(("amq.gen-", "amq.rabbitmq.reply-to.")) or not name.startswith("amq.")
    refusal = refuse_sender(delivery, service="S", exchange="jsonrpc")
    if refusal is None:
        assert delivery.user_id
        assert delivery.exchange == "jsonrpc"
        if delivery.routing_key != "S.request":
            word = delivery.routing_key.split(".")[2]
            assert unquote(word[: -len("-0123456789ab")]) == delivery.user_id
    else:
        assert refusal.reason.isprintable()
    mismatch = ReplyChecks(read.choice("jsonrpc", ""), read.choice(None, frozenset(["srv"]))).mismatch(
        delivery, read.text()
    )
    assert mismatch is None or mismatch.isprintable()


def urls(data: bytes) -> None:
    """No part of a password is shown, whatever else is in a URL."""
    read = Reader(data)
    before, between, after = read.text(), read.text(), read.text()
    shown = redact(f"amqp://{before}:SENTINEL{between}SENTINEL@{after}")
    assert "SENTINEL" not in shown
    assert printable(before).isprintable()
    assert all(sign.isprintable() for sign in _escaped(before, keep=""))


# -- dialects -------------------------------------------------------------------------------------------------------

_recipe = RecipeServer("S", "jsonrpc", "two", _dispatcher.signature_of)
_java = JavaServer("S", lambda: {name: _dispatcher.signature_of(name) for name in _dispatcher.names})
_client = RecipeClient()


def dialects(data: bytes) -> None:
    """A message of a dialect is translated, passed on unchanged, or raises ``MalformedEnvelope``."""
    read = Reader(data)
    delivery = read.delivery()
    body = read.rest()
    _serve(_java.read(delivery, body))
    with suppress(MalformedEnvelope):
        _serve(_recipe.read(delivery, body))
    _client.number(delivery)
    request = messages.request("two", [1], 1)
    with suppress(MalformedReply):
        messages.parse_response(_client.response(request, body), 1)


def _serve(inbound: Inbound | None) -> None:
    if inbound is None:
        return
    answer = _dispatcher(inbound.body)
    if answer is not None:
        json.loads(inbound.reply(answer))
    assert inbound.route is None or len(inbound.route.routing_key.encode()) <= 255


# -- frames ---------------------------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """Bytes are AMQP frames, or raise ``FrameError``, independent of how they are split into reads."""
    whole = _fed([data])
    read = Reader(data[-8:])
    cut = read.number(len(data))
    assert _fed([data[:cut], data[cut:]]) == whole


def _fed(pieces: list[bytes]) -> list[str]:
    decoder = Decoder(max_body=1 << 12, frame_max=1 << 12)
    events: list[str] = []
    try:
        for piece in pieces:
            events += [_described(event) for event in decoder.feed(piece)]
    except FrameError:
        events.append("error")
    # Whether events before an error are returned depends on how the bytes were split.
    return events[-1:] if events[-1:] == ["error"] else events


def _described(event: Any) -> str:
    if isinstance(event, Undecoded):
        return repr((event.delivery.tag, event.delivery.size, event.why))
    if isinstance(event, Delivery):
        return repr(
            [getattr(event, name) for name in ("tag", "routing_key", "body", "user_id", "timeout_ms", "headers")]
        )
    return repr(event)


# -- headers tables -------------------------------------------------------------------------------------------------


def tables(data: bytes) -> None:
    """Any table is read, as py-amqp reads it where it can; what was read can be sent, or is refused by name."""
    table = struct.pack(">I", len(data)) + data
    for raw in (data, table):
        headers, unreadable = read(raw)
        assert len(unreadable.first) < 500
    try:
        theirs, end = decode_fields("F", table, 0)
    except Exception:
        assert unreadable.names
    else:
        # It reads beyond the lengths of nested tables, and finds other values then.
        assert end != len(table) or unreadable.names or same(headers, theirs[0])
    with suppress(EncodeError):
        entries = encode(headers)
        assert not read(struct.pack(">I", len(entries)) + entries)[1].names


_ALL = (
    *(dispatch, conversion, replies, jsontext, names, routes, urls, dialects, frames, tables),
    *(peers.broker, peers.server),
)
TARGETS: dict[str, Target] = {each.__name__: each for each in _ALL}


def seeds(target: str) -> list[bytes]:
    """Return the initial inputs of a target."""
    bodies = [
        b'{"jsonrpc": "2.0", "method": "two", "params": [1, 2], "id": 1}',
        b'{"jsonrpc": "2.0", "method": "pos", "params": {"a": "\\u00fc", "b": null}, "id": "q538"}',
        b'[{"jsonrpc": "2.0", "method": "a.b"}, {"jsonrpc": "2.0", "method": "fail", "params": {"x": 1e5}, "id": 0}]',
        b'{"jsonrpc": "2.0", "result": [1.5, true, {"a": -0.0}], "id": 1}',
        b'{"jsonrpc": "2.0", "error": {"code": -32000, "message": "m", "data": {}}, "id": null}',
        b'{"method": "two", "id": null, "params": [1], "version": "1.1"}',
        b'{"q": [1, {"a": 2}], "qid": "q518"}',
        b'{"error": {"code": 1, "message": "m"}}',
    ]
    if target == "frames":
        deliver = b"\0\x3c\0\x3c\1t" + struct.pack(">QB", 1, 0) + b"\7jsonrpc\3S.x"
        header = struct.pack(">HHQH", 60, 0, 2, 0x8000 | 0x2000 | 0x10) + b"\1t\0\0\0\4\1aIx\1u"
        parts = ((1, deliver), (2, header), (3, b"{}"))
        return [b"".join(struct.pack(">BHI", kind, 1, len(part)) + part + b"\xce" for kind, part in parts)]
    if target == "conversion":
        tree = b'{"name": "a", "children": [{"name": "b", "prices": {"x": "1.5"}}]}'
        return [
            b'[%b, {"a": 5, "b": [{}], "c": "2026-11-29T06:40:00Z"}, ["a", 1], "1.5"]' % tree,
            b'{"a": 1, "b": %b, "c": [1, 2]}' % tree,
            bytes(range(9, 200)),
        ]
    if target == "tables":
        return [raw for raw, _code in RAW.values() if len(raw) < 500]
    if target == "broker":
        return peers.SCRIPTS
    if target in ("names", "routes", "urls"):
        return [b"\4\0" * 20, b"\4\1\3\1\0\1\0\2" * 8, bytes(range(200)), b"\0\1" * 40]
    if target == "dialects":
        # The bytes of the delivery's properties come first.
        before = Reader(b"\4")
        before.delivery()
        return [b"\4".ljust(before.position, b"\0") + body for body in bodies] + bodies
    return bodies
