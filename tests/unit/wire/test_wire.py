"""The wire contract: names, keys, properties, where answers go. Tables first, then what holds for any input."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import amqp.serialization
import pika.frame
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Delivery, Publish
from jsonrpc_amqp.amqp.encoder import Encoder
from jsonrpc_amqp.amqp.memory_broker import topic_matches
from jsonrpc_amqp.errors import CallTimeout, InvalidName
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.wire.display import printable, redact
from jsonrpc_amqp.wire.names import (
    check_service,
    client_word,
    new_token,
    qid_of,
    reply_binding,
    request_binding,
    request_queue,
)
from jsonrpc_amqp.wire.publish import (
    Address,
    call_message,
    deadline_of,
    milliseconds,
    notification_message,
    reply_message,
)
from jsonrpc_amqp.wire.reply_route import reply_route, reply_to_filter

NOW = 1000.0
TOKEN = "0123456789ab"
HERE = Path(__file__).parents[2]
DOCS = HERE.parent / "docs" / "protocol.md"
PLAIN_WORD = re.compile(r"[A-Za-z0-9_~%-]+")

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SERVICES = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=6).map(".".join)


def is_legal(service: str) -> bool:
    words = service.split(".")
    return len(service) <= 80 and words[0] != "amq" and not {"request", "response", "control"} & set(words)


# -- helpers ------------------------------------------------------------------------------------------------


def on_the_wire(message: Publish) -> dict[str, Any]:
    """Encode a publish, and read its frames with another AMQP library."""
    encoder = Encoder(frame_max=131072, encode_table=lambda table: amqp.serialization.dumps("F", (dict(table),)))
    method, header, *body = frames(encoder.publish(1, message))
    return {
        "exchange": method.method.exchange,
        "routing_key": method.method.routing_key,
        "mandatory": method.method.mandatory,
        "properties": {name: value for name, value in vars(header.properties).items() if value is not None},
        "body": b"".join(each.fragment for each in body),
    }


def request_key(address: Address, qid: str) -> str:
    """Give the routing key of a call, as it is published."""
    return call_message(address, b"{}", number="1", qid=qid, deadline=None, now=0.0).routing_key


def frames(data: bytes) -> Iterator[Any]:
    while data:
        used, frame = pika.frame.decode_frame(data)
        assert used, "a frame is cut off"
        yield frame
        data = data[used:]


def delivery(
    routing_key: str = "S.request.q538", exchange: str = "jsonrpc", *, timeout_ms: int | None = None, **properties: Any
) -> Delivery:
    known = {name: value for name, value in properties.items() if name not in ("headers", "delivery_mode")}
    return Delivery(1, 1, False, exchange, routing_key, b"", timeout_ms=timeout_ms, **known)


def address_of(inputs: dict[str, Any]) -> Address:
    return Address(
        exchange=inputs["exchange"],
        service=inputs["service"],
        client=client_word(inputs["user"], inputs["token"]),
        reply_to=DIRECT_REPLY_TO if inputs.get("reply") == "direct" else None,
        user=inputs["user"],
    )


def deadline_in(seconds: float | None) -> float | None:
    return None if seconds is None else NOW + seconds


def cases(file: str, rule: str) -> pytest.MarkDecorator:
    """Parametrize with the inputs and expectations that the vectors have for one rule."""
    among = json.loads((HERE / "vectors" / file).read_text(encoding="utf-8"))["cases"]
    chosen = [pytest.param(case["inputs"], case["expected"], id=case["name"]) for case in among if case["rule"] == rule]
    assert chosen, rule
    return pytest.mark.parametrize(("inputs", "expected"), chosen)


# -- names and keys -------------------------------------------------------------------------------------------


@cases("keys.json", "service")
def test_service_names(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    service = inputs["service"]
    if "error" in expected:
        with pytest.raises(InvalidName) as caught:
            check_service(service)
        assert expected["error"] in str(caught.value)
        return
    assert check_service(service) == service
    assert request_queue(service) == expected["request_queue"]
    assert request_binding(service) == expected["request_binding"]


@pytest.mark.parametrize("name", [None, 5, b"bytes", ["a"]])
def test_service_name_of_another_type(name: Any) -> None:
    with pytest.raises(InvalidName, match="string"):
        check_service(name)


@cases("keys.json", "client")
def test_client_words(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(InvalidName, match=expected["error"]):
            client_word(inputs["user"], inputs["token"])
    else:
        assert client_word(inputs["user"], inputs["token"]) == expected["client"]


def test_user_without_a_form_in_utf8_is_refused() -> None:
    with pytest.raises(InvalidName, match="UTF-8"):
        client_word("\ud800", TOKEN)


@cases("keys.json", "qid")
def test_qids(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    assert qid_of(json.loads(inputs["id_json"])) == expected["qid"]


def test_qid_of_an_integer_that_python_refuses_to_write() -> None:
    assert qid_of(1 << 100_000) == "_"


@cases("keys.json", "keys")
def test_keys(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    address = Address(exchange="jsonrpc", service=inputs["service"], client=inputs["client"])
    assert request_key(address, inputs["qid"]) == expected["request_key"]
    assert address.notification_key == expected["notification_key"]
    assert reply_binding(inputs["service"], inputs["client"]) == expected["reply_binding"]
    route = reply_route(delivery(expected["request_key"]), service=inputs["service"], exchange="jsonrpc")
    assert route == ("jsonrpc", expected["response_key"], True)


def test_new_tokens() -> None:
    tokens = [new_token() for _ in range(100)]
    assert all(re.fullmatch("[a-z0-9]{12}", token) for token in tokens)
    assert len(set(tokens)) == len(tokens)


def test_longest_legal_names_fit_into_a_key() -> None:
    address = Address(exchange="x", service="s" * 80, client=client_word("u" * 64, TOKEN))
    assert len(request_key(address, "q" * 64)) <= 254  # the answer's has one byte more


@pytest.mark.parametrize(("length", "fits"), [(179, True), (180, False)])
def test_keys_that_could_exceed_255_bytes_are_refused_in_advance(length: int, fits: bool) -> None:
    # "S" + ".response." + client + "." + 64 bytes of qid
    if fits:
        assert Address(exchange="x", service="S", client="c" * length).client == "c" * length
    else:
        with pytest.raises(InvalidName, match="255"):
            Address(exchange="x", service="S", client="c" * length)


def test_address_refuses_an_illegal_service() -> None:
    with pytest.raises(InvalidName, match="'request'"):
        Address(exchange="x", service="a.request", client="c")


@given(JSON_VALUES)
def test_any_id_makes_one_plain_word(request_id: Any) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", qid_of(request_id))


@given(st.integers(-(10**66), 10**66) | st.from_regex(r"[A-Za-z0-9_-]{1,70}", fullmatch=True))
def test_plain_ids_are_their_own_qids(request_id: int | str) -> None:
    assert qid_of(request_id) == (str(request_id) if len(str(request_id)) <= 64 else "_")


@given(st.text(min_size=1))
@example("request")
@example("%")
def test_any_user_makes_one_word_that_decodes_back(user: str) -> None:
    try:
        word = client_word(user, TOKEN)
    except InvalidName:
        # Each byte takes one character, or three.
        assert 3 * len(user.encode()) > 64
        return
    encoded, hyphen, token = word.rpartition("-")
    assert (hyphen, token) == ("-", TOKEN)
    assert PLAIN_WORD.fullmatch(word)
    assert unquote(encoded) == user


@given(SERVICES, st.text(max_size=21), JSON_VALUES)
def test_any_key_has_its_words_and_fits(service: str, user: str, request_id: Any) -> None:
    try:
        address = Address(exchange="x", service=service, client=client_word(user, TOKEN))
    except InvalidName:
        assert not is_legal(service) or 3 * len(user.encode()) > 64
        return
    key = request_key(address, qid_of(request_id))
    words = key.split(".")
    assert words[: len(words) - 3] == service.split(".")
    assert words[-3] == "request"
    assert all(PLAIN_WORD.fullmatch(word) for word in words)
    assert len(key.encode()) <= 254


@given(st.text(max_size=90) | SERVICES)
@example("a.request")
@example("amq.x")
def test_exactly_the_legal_service_names_are_taken(name: str) -> None:
    words = name.split(".")
    well_formed = all(re.fullmatch(r"[A-Za-z0-9_-]+", word) for word in words)
    if well_formed and is_legal(name):
        assert check_service(name) == name
        return
    with pytest.raises(InvalidName) as caught:
        check_service(name)
    assert str(caught.value).isascii(), "names from elsewhere are escaped"


# -- deadlines ------------------------------------------------------------------------------------------------


@cases("keys.json", "milliseconds")
def test_milliseconds(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    assert milliseconds(inputs["seconds"]) == expected["milliseconds"]


@given(st.floats(allow_nan=False))
def test_milliseconds_are_what_amqp_takes_and_never_too_few(seconds: float) -> None:
    result = milliseconds(seconds)
    assert type(result) is int
    assert 1 <= result <= 4294967295
    if seconds < 4294967:
        assert result / 1000 >= seconds - 1e-6
    if seconds > 0:
        assert result <= seconds * 1000 + 1


def test_deadline_counts_from_when_the_request_arrived_here() -> None:
    assert deadline_of(delivery(timeout_ms=2500), NOW) == NOW + 2.5


def test_request_without_timeout_ms_has_no_deadline() -> None:
    assert deadline_of(delivery(), NOW) is None


# -- requests and answers ---------------------------------------------------------------------------------------


@cases("requests.json", "publish")
def test_requests(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    address, method, params = address_of(inputs), inputs["method"], inputs["params"]
    if inputs["kind"] == "notification":
        message = notification_message(
            address,
            messages.notification(method, params),
            message_id=inputs["message_id"],
            persistent=inputs.get("persistent", True),
        )
        check_publish(message, expected)
        return
    body = messages.request(method, params, inputs["id"])
    options: dict[str, Any] = {
        "number": inputs["number"],
        "qid": qid_of(inputs["id"]),
        "deadline": deadline_in(inputs["seconds"]),
        "now": NOW,
        "persistent": inputs.get("persistent", False),
        "headers": inputs.get("headers"),
    }
    if "error" in expected:
        with pytest.raises(CallTimeout) as caught:
            call_message(address, body, **options)
        assert caught.value.may_have_run is False
    else:
        check_publish(call_message(address, body, **options), expected)


def check_publish(message: Publish, expected: dict[str, Any]) -> None:
    sent = on_the_wire(message)
    sent["body"] = json.loads(sent["body"])
    assert sent == expected


@cases("batches.json", "publish")
def test_batches(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    address, body = address_of(inputs), messages.encode(inputs["members"])
    kind = messages.classify(body)
    if kind.is_notification:
        message = notification_message(address, body, message_id=inputs["message_id"])
    else:
        deadline = deadline_in(inputs["seconds"])
        qid = qid_of(kind.id)
        message = call_message(address, body, number=inputs["number"], qid=qid, deadline=deadline, now=NOW)
    check_publish(message, {**expected, "body": inputs["members"]})


def test_call_without_bounds_in_time() -> None:
    address = Address(exchange="x", service="S", client="c")
    message = call_message(address, b"{}", number="1", qid="1", deadline=math.inf, now=NOW)
    assert message.expiration_ms == message.timeout_ms == 4294967295


@cases("keys.json", "reply")
def test_where_answers_go(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    arrived = inputs["delivery"]
    route = reply_route(
        delivery(arrived["routing_key"], arrived["exchange"], reply_to=arrived["reply_to"]),
        service=inputs["service"],
        exchange=inputs["exchange"],
        request_queues=inputs["request_queues"],
        allowed=reply_to_filter(inputs["reply_to_allowed"]),
    )
    assert (None if route is None else route._asdict()) == expected["route"]


@given(
    SERVICES.filter(is_legal), st.sampled_from(["request", "response", "control"]) | st.text(max_size=21), JSON_VALUES
)
@example("request-x", "request", "request")
def test_answer_key_differs_in_one_word(service: str, user: str, request_id: Any) -> None:
    try:
        client = client_word(user, TOKEN)
    except InvalidName:
        return
    key = request_key(Address(exchange="x", service=service, client=client), qid_of(request_id))
    route = reply_route(delivery(key, "x"), service=service, exchange="x")
    assert route is not None
    before, after = key.split("."), route.routing_key.split(".")
    assert len(before) == len(after)
    changed = [(place, old, new) for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert changed == [(len(service.split(".")), "request", "response")]


def binding_of(address: Address) -> str:
    return reply_binding(address.service, address.client)


@given(st.lists(st.tuples(SERVICES.filter(is_legal), st.text(max_size=5)), min_size=1, max_size=4), JSON_VALUES)
@example([("S", "request"), ("S", "response"), ("S.T", "request")], "request")
@example([("S", "a.b"), ("S", "a"), ("S", "*"), ("S", "#"), ("S", None)], "a.b")
def test_answer_reaches_its_client_and_no_other(clients: list[tuple[str, str | None]], request_id: Any) -> None:
    addresses = [
        Address(exchange="x", service=service, client=client_word(user, f"token{number:07}"))
        for number, (service, user) in enumerate(clients)
    ]
    for address in addresses:
        key = request_key(address, qid_of(request_id))
        assert [each for each in clients if topic_matches(request_binding(each[0]), key)] == [
            each for each in clients if each[0] == address.service
        ]
        route = reply_route(delivery(key, "x"), service=address.service, exchange="x")
        assert route is not None
        assert [each for each in addresses if topic_matches(binding_of(each), route.routing_key)] == [address]
        assert not topic_matches(request_binding(address.service), route.routing_key)


@given(st.binary(max_size=255))
def test_keys_that_are_not_utf8_are_mirrored_byte_for_byte(tail: bytes) -> None:
    key = b"S.request." + tail
    route = reply_route(delivery(key.decode("utf-8", "surrogateescape")), service="S", exchange="jsonrpc")
    if len(key) > 254:
        assert route is None
    else:
        assert route is not None
        assert route.routing_key.encode("utf-8", "surrogateescape") == b"S.response." + tail


@given(st.text(max_size=300))
@example("S_req")
@example("amq.gen-x")
@example("amq.rabbitmq.reply-to.x")
def test_no_answer_is_written_where_it_could_do_harm(queue: str) -> None:
    route = reply_route(delivery(reply_to=queue), service="S", exchange="jsonrpc", request_queues=["work"])
    if route is None:
        return
    assert (route.exchange, route.routing_key) == ("", queue)
    assert 1 <= len(queue.encode()) <= 255
    assert queue != "work"
    assert not queue.endswith("_req")
    assert not queue.startswith("amq.") or queue.startswith(("amq.gen-", "amq.rabbitmq.reply-to."))


@cases("answers.json", "publish")
def test_answers(inputs: dict[str, Any], expected: dict[str, Any] | None) -> None:
    arrived = inputs["request"]
    request = delivery(arrived["routing_key"], arrived["exchange"], **arrived["properties"])
    route = reply_route(request, service=inputs["service"], exchange=inputs["exchange"], request_queues=["S_req"])
    if expected is None:
        assert route is None
        return
    assert route is not None
    message = reply_message(request, b"{}", route=route, now=NOW, deadline=deadline_in(inputs["seconds"]))
    check_publish(message, {**expected, "body": {}})


@pytest.mark.parametrize(
    "allowed", [r"friends\..*", re.compile(r"friends\..*"), lambda name: name.startswith("friends.")]
)
def test_reply_to_allowed_takes_patterns_and_callables(allowed: Any) -> None:
    may = reply_to_filter(allowed)
    assert may is not None
    assert may("friends.1")
    assert not may("my.friends.1")


def test_reply_to_allowed_is_optional() -> None:
    assert reply_to_filter(None) is None


def test_worked_example_of_the_docs() -> None:
    """The bytes in the docs are those that are sent, and mean what the docs say."""
    dump = DOCS.read_text(encoding="utf-8").split("```hex\n")[1].split("```")[0]
    data = bytes.fromhex(dump)
    address = Address(exchange="jsonrpc", service="calc", client=f"alice-{TOKEN}", user="alice")
    body = messages.request("add", [1, 2], 7)
    message = call_message(address, body, number="7", qid="7", deadline=NOW + 5, now=NOW)
    encoder = Encoder(frame_max=131072, encode_table=lambda table: amqp.serialization.dumps("F", (dict(table),)))
    assert encoder.publish(1, message) == data
    method, header, content = frames(data)
    assert (method.method.exchange, method.method.routing_key) == ("jsonrpc", f"calc.request.alice-{TOKEN}.7")
    assert header.properties.headers == {"timeout-ms": 5000}
    assert json.loads(content.fragment) == {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 7}


# -- text for people ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://", "amqp://"),
        ("amqp://host", "amqp://host"),
        ("amqp://host:5672/vhost", "amqp://host:5672/vhost"),
        ("amqps://[::1]:5671/%2F", "amqps://[::1]:5671/%2F"),
        ("amqp://alice@host", "amqp://alice:***@host"),
        ("amqp://alice:SECRET@host:5672/v", "amqp://alice:***@host:5672/v"),
        ("amqp://:SECRET@host", "amqp://:***@host"),
        ("amqp://alice:SECRET@", "amqp://alice:***@"),
        ("amqp://alice:SECRET%40@host", "amqp://alice:***@host"),
        ("amqp://alice:SEC@RET@host", "amqp://alice:***@host"),
        ("amqp://alice:SEC:RET@host", "amqp://alice:***@host"),
        ("amqp://a:SECRET@one;amqp://b:SECRET@two:1/v", "amqp://a:***@one;amqp://b:***@two:1/v"),
        ("amqps://host/?keyfile=SECRET&x=SECRET", "amqps://host/"),
        ("amqp://host?password=SECRET", "amqp://host"),
        ("memory://tests", "memory://tests"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "SECRET",
        "alice:SECRET@host",
        "amqp:alice:SECRET@host",
        "amqp:/alice:SECRET@host",
        "amqp://alice:SECRET",
        "amqp://alice:pwd",
        "amqp://alice:123456",
        "amqp://alice:SEC/RET@host",
        "amqp://alice:12/34@host",
        "amqp://alice:SEC?RET@host",
        "amqp://alice:12?34@host",
        "amqp://alice:SEC#RET@host",
        "amqp://alice:12#34@host",
        "amqp://alice:SEC;RET@host",
        "amqp://alice:12;34@host",
        "amqp://a@b/c:SECRET@host",
        "amqp://good:SECRET@one;SECRET",
        "amqp://host/v#SECRET",
    ],
)
def test_malformed_urls_are_masked_as_a_whole(url: str) -> None:
    assert redact(url) == "***"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from(["amqp://alice:{}@host", "amqp://alice:{}@host/v?heartbeat=1", "amqp://h;amqp://alice:{}@host"]),
)
def test_no_piece_of_a_password_is_shown(password: str, url: str) -> None:
    # Marked left and right, so that a piece of it cannot be mistaken for something else.
    assert "PWD" not in redact(url.format(f"PWD{password}PWD"))


@given(st.text("78;/?#@:%&=[]. \\\n", min_size=1, max_size=12))
@example("7;8")
@example("7/8@8")
def test_no_digit_of_a_password_passes_for_a_port(password: str) -> None:
    for url in ("amqp://alice:{}@host", "amqps://alice:{}@host:5671/v?x=1", "amqp://one;amqp://alice:{}@two"):
        shown = redact(url.format(password)).replace(":5671", "")
        assert not set("78") & set(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "'plain'"),
        ("line\nbreak\r", r"'line\nbreak\r'"),
        ("\x1b[31mred\x1b[0m", r"'\x1b[31mred\x1b[0m'"),
        ("\u202eleft", r"'\u202eleft'"),
        ("\udcff", r"'\udcff'"),
        ("\x00\x7f\x9b", r"'\x00\x7f\x9b'"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_cuts() -> None:
    assert printable("x" * 201) == f"'{'x' * 200}...'"
    assert printable("x" * 200) == f"'{'x' * 200}'"
    assert printable("x" * 20, 3) == "'xxx...'"


@given(st.text(st.characters(), max_size=50), st.integers(0, 40))
@example("\x1b]0;title\x07", 40)
@example("\u2066\u202e\u200f", 40)
def test_printable_is_one_harmless_line_of_bounded_length(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isascii()
    assert shown.isprintable()
    # Quotes and dots aside, no character takes more than the ten of "\U0001f407".
    assert len(shown) <= 10 * min(len(text), limit) + 5
