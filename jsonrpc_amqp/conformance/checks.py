"""All checks; each has a name of its own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, NamedTuple

from ..amqp.base import DIRECT_REPLY_TO
from ..wire.names import MAX_KEY_BYTES
from .harness import (
    DIFFERENT,
    RESULT,
    SILENCE,
    SUBTRACT,
    Fault,
    Harness,
    Json,
    call,
    expect_error,
    read,
    same,
    same_response,
    shown,
    written,
)

_MANY = 200
# A reply may have a ``user_id``: the broker checks that it is the server's own.
_REPLY_PROPERTIES = {"content_type", "delivery_mode", "correlation_id", "expiration", "user_id"}


class Check(NamedTuple):
    """One thing to check; ``run`` raises ``Fault``."""

    group: str
    name: str
    run: Callable[[Harness], None]


# -- the specification's examples ---------------------------------------------------------------------------


def _example_checks() -> Iterator[Check]:
    for example in _vectors("specification")["examples"]:
        yield Check("specification", example["description"], partial(_check_example, example=example))


def _check_example(harness: Harness, example: Mapping[str, Any]) -> None:
    if example["response"] is None:
        harness.raw.forget()
        harness.send(example["request"].encode())
        harness.expect_silence()
    else:
        same_response(read(harness.ask(example["request"].encode())), example["response"])


# -- the test vectors ---------------------------------------------------------------------------------------


def _vectors(name: str) -> Any:
    return json.loads((files("jsonrpc_amqp") / "vectors" / f"{name}.json").read_text("utf-8"))


def _of_rule(name: str, rule: str) -> Iterator[Mapping[str, Any]]:
    return (case for case in _vectors(name)["cases"] if case["rule"] == rule)


def _kind_checks() -> Iterator[Check]:
    for case in _of_rule("requests", "kind"):
        yield Check("vectors", case["name"], partial(_check_kind, case=case))


def _check_kind(harness: Harness, case: Mapping[str, Any]) -> None:
    inputs = case["inputs"]
    body = bytes.fromhex(inputs["body_hex"]) if "body_hex" in inputs else inputs["body"].encode()
    harness.raw.forget()
    harness.send(body)
    if case["expected"]["kind"] == "notification":
        harness.expect_silence()
        return
    # None of these bodies names an existing method, so each gets errors.
    response = read(harness.reply())
    members = response if isinstance(response, list) else [response]
    if not members:
        raise Fault("the answer is an empty array")
    for member in members:
        expect_error(member, (-32700, -32600, -32601), member.get("id") if isinstance(member, dict) else None)
    harness.expect_alive()


def _route_checks() -> Iterator[Check]:
    for case in _of_rule("keys", "reply"):
        there = case["inputs"]["delivery"]
        mirrored = there["exchange"] == "jsonrpc" and there["routing_key"].startswith("S.request.")
        if mirrored and there["reply_to"] is None and case["expected"]["route"] is not None:
            yield Check("vectors", case["name"], partial(_check_mirrored, key=there["routing_key"]))


def _check_mirrored(harness: Harness, key: str) -> None:
    tail = key.removeprefix("S.request.")
    request, response = f"{harness.service}.request.{tail}", f"{harness.service}.response.{tail}"
    if len(response) > MAX_KEY_BYTES:
        tail = tail[: MAX_KEY_BYTES - len(response)]
        request, response = f"{harness.service}.request.{tail}", f"{harness.service}.response.{tail}"
    harness.raw.bind(harness.exchange, response)
    reply = harness.ask(SUBTRACT, key=request)
    if (reply.exchange, reply.routing_key) != (harness.exchange, response):
        raise Fault(f"it was published to {reply.routing_key!r}, where {response!r} is due")
    same(read(reply), RESULT)


def _publish_checks() -> Iterator[Check]:
    for case in _of_rule("answers", "publish"):
        if case["expected"] is not None and (case["inputs"]["seconds"] is None or case["inputs"]["seconds"] >= 1):
            yield Check("vectors", f"answer, {case['name']}", partial(_check_publish, case=case))


def _check_publish(harness: Harness, case: Mapping[str, Any]) -> None:
    inputs, wanted = case["inputs"], dict(case["expected"]["properties"])
    properties = dict(inputs["request"]["properties"])
    properties.pop("user_id", None)  # the broker rejects any user_id but our own
    headers = dict(properties.pop("headers", {}))
    if inputs["seconds"] is not None:
        headers["timeout-ms"] = round(inputs["seconds"] * 1000)
    if headers:
        properties["application_headers"] = headers
    if "reply_to" in properties:
        direct = properties["reply_to"].startswith(DIRECT_REPLY_TO)
        properties["reply_to"] = DIRECT_REPLY_TO if direct else harness.raw.replies
    by_queue = inputs["request"]["exchange"] == ""
    where = {"exchange": "", "key": harness.queue} if by_queue else {}
    reply = harness.ask(SUBTRACT, **{"correlation_id": None, **properties, **where})
    same(read(reply), RESULT)
    got = dict(reply.properties)
    got.pop("user_id", None)  # optional
    if "expiration" in wanted:
        _check_expiration(got.pop("expiration", None), headers["timeout-ms"])
        del wanted["expiration"]
    for name in sorted({*got, *wanted}):
        if got.get(name) != wanted.get(name):
            raise Fault(DIFFERENT.format(field=name, got=repr(got.get(name)), wanted=repr(wanted.get(name))))


def _check_expiration(text: Any, given: int) -> None:
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and 1 <= int(text) <= given):
        raise Fault(DIFFERENT.format(field="expiration", got=repr(text), wanted=f"1 to {given}, as text,"))


# -- the wire -----------------------------------------------------------------------------------------------

_CHECKS: list[Check] = []


def _register(group: str, name: str) -> Callable[[Callable[[Harness], None]], Callable[[Harness], None]]:
    def register(run: Callable[[Harness], None]) -> Callable[[Harness], None]:
        _CHECKS.append(Check(group, name, run))
        return run

    return register


def _id_checks() -> Iterator[Check]:
    for id in (1, 0, -5, 2**53, "1", "q538", "a.b", "", "ü😀", "x" * 300, 1.5, None):
        shown = written(id) if len(str(id)) < 20 else "a string of 300 characters"
        yield Check("wire", f"the id {shown} comes back", partial(_check_id, id=id))


def _check_id(harness: Harness, id: Json) -> None:
    same(read(harness.ask(call("subtract", [42, 23], id))), {"jsonrpc": "2.0", "result": 19, "id": id})
    expect_error(read(harness.ask(call("absent", id=id))), (-32601,), id)


@_register("wire", "correlation_id comes back, whatever it is")
def _correlation(harness: Harness) -> None:
    for text in ("1", "c" * 255, "ü 😀", "a.b#*"):
        got = harness.ask(SUBTRACT, correlation_id=text).properties.get("correlation_id")
        if got != text:
            raise Fault(DIFFERENT.format(field="correlation_id", got=repr(got), wanted=repr(text)))
    if "correlation_id" in harness.ask(SUBTRACT, correlation_id=None).properties:
        raise Fault("the answer has a correlation_id where the request had none")


@_register("wire", "an answer has the properties that are due, and no other")
def _properties(harness: Harness) -> None:
    got = harness.ask(SUBTRACT, application_headers={"timeout-ms": 5000, "trace": "x"}, message_id="m").properties
    for name, wanted in (("content_type", "application/json"), ("content_encoding", None), ("delivery_mode", 1)):
        if got.get(name) != wanted:
            raise Fault(DIFFERENT.format(field=name, got=repr(got.get(name)), wanted=wanted or "nothing"))
    if more := set(got) - _REPLY_PROPERTIES:
        raise Fault(f"the answer has {', '.join(sorted(more))} as well")
    _check_expiration(got.get("expiration"), 5000)


@_register("wire", "content_type and content_encoding of a request change nothing")
def _encodings(harness: Harness) -> None:
    for type_ in (None, "text/plain", "application/json-rpc", "application/x-python-serialize"):
        for encoding in (None, "gzip", "utf-8", "binary"):
            reply = harness.ask(SUBTRACT, content_type=type_, content_encoding=encoding)
            same(read(reply), RESULT, f"with {type_} and {encoding}: ")


@_register("wire", "a timeout-ms that makes no sense is ignored")
def _bad_timeout(harness: Harness) -> None:
    for value in ("soon", -1, 0, True, {"a": 1}):
        reply = harness.ask(SUBTRACT, application_headers={"timeout-ms": value})
        same(read(reply), RESULT, f"with {value!r}: ")


@_register("wire", "reply_to a queue of the client, over the exchange")
def _reply_queue(harness: Harness) -> None:
    _expect_reply(harness, harness.raw.queue(f"replies-{secrets.token_hex(6)}"))


@_register("wire", "reply_to a queue of the client, from a request by the queue's name")
def _reply_queue_by_name(harness: Harness) -> None:
    _expect_reply(harness, harness.raw.replies, exchange="", key=harness.queue)


@_register("wire", "direct reply-to, over the exchange")
def _direct(harness: Harness) -> None:
    _expect_reply(harness, DIRECT_REPLY_TO)


@_register("wire", "direct reply-to, from a request by the queue's name")
def _direct_by_name(harness: Harness) -> None:
    _expect_reply(harness, DIRECT_REPLY_TO, exchange="", key=harness.queue)


def _expect_reply(harness: Harness, reply_to: str, **where: Any) -> None:
    reply = harness.ask(SUBTRACT, reply_to=reply_to, correlation_id="a.b", **where)
    same(read(reply), RESULT)
    if reply.queue != reply_to or (reply.exchange and reply_to != DIRECT_REPLY_TO):
        raise Fault(f"the answer went to {reply.routing_key!r} on exchange {reply.exchange!r}, and not to reply_to")
    if reply.properties.get("correlation_id") != "a.b":
        raise Fault(DIFFERENT.format(field="correlation_id", got=reply.properties.get("correlation_id"), wanted="a.b"))
    harness.expect_no_more()


@_register("wire", "many calls at once, each with its own answer")
def _many(harness: Harness) -> None:
    harness.raw.forget()
    wanted = {}
    for number in range(_MANY):
        key = harness.send(call("subtract", [number, 1], number))
        wanted[key.replace(".request.", ".response.", 1)] = {"jsonrpc": "2.0", "result": number - 1, "id": number}
    replies = harness.raw.take(harness.timeout + 5, until=_MANY)
    if len(replies) != _MANY:
        raise Fault(f"{len(replies)} of {_MANY} answers came")
    for reply in replies:
        if reply.routing_key not in wanted:
            raise Fault(f"an answer was published to {reply.routing_key!r}, twice or by mistake")
        same(read(reply), wanted.pop(reply.routing_key))


@_register("wire", "params by position and by name, too few, too many, and unknown")
def _params(harness: Harness) -> None:
    for params in ([42, 23], {"subtrahend": 23, "minuend": 42}):
        same(read(harness.ask(call("subtract", params))), RESULT)
    for params in ([42], [42, 23, 1], {"minuend": 42}, {"minuend": 42, "subtrahend": 23, "x": 1}, {"a": 1, "b": 2}):
        expect_error(read(harness.ask(call("subtract", params))), (-32602,), 1)


@_register("wire", "a request is done with once")
def _once(harness: Harness) -> None:
    for body in (SUBTRACT, b"{"):
        harness.ask(body)
        harness.expect_no_more()
    waiting = harness.raw.waiting(harness.queue)
    if waiting:
        raise Fault(f"{waiting} requests wait in the queue: they were given back")


# -- hostile ------------------------------------------------------------------------------------------------


def _junk_checks() -> Iterator[Check]:
    bodies = {
        "no bytes": b"",
        "no JSON": b"hello",
        "cut off": SUBTRACT[:-1],
        "something behind": SUBTRACT + b"x",
        "a byte order mark": b"\xef\xbb\xbf" + SUBTRACT,
        "no UTF-8": SUBTRACT.replace(b"subtract", b"s\xff"),
        "UTF-16": SUBTRACT.decode().encode("utf-16"),
        "NaN": SUBTRACT.replace(b"23", b"NaN"),
        "Infinity": SUBTRACT.replace(b"23", b"-Infinity"),
        "single quotes": SUBTRACT.replace(b'"', b"'"),
        "a pickle": b"cos\nsystem\n(S'true'\ntR.",
        "nested 100,000 times": b"[" * 100_000,
        "nested 100,000 times, and closed": b"[" * 100_000 + b"]" * 100_000,
    }
    for name, body in bodies.items():
        yield Check("hostile", f"{name}: -32700", partial(_check_unparsable, body=body))


def _check_unparsable(harness: Harness, body: bytes) -> None:
    expect_error(read(harness.ask(body)), (-32700,), None)
    expect_error(read(harness.ask(body, reply_to=DIRECT_REPLY_TO)), (-32700,), None)
    harness.expect_alive()


@_register("hostile", "ids and params of the wrong type: -32600")
def _wrong_types(harness: Harness) -> None:
    for id in ([4], {"a": 1}, True):
        expect_error(read(harness.ask(call("subtract", [42, 23], id))), (-32600,), None)
    for params in (b"null", b"5", b'"ab"'):
        body = b'{"jsonrpc": "2.0", "method": "sum", "params": %b, "id": 7}' % params
        expect_error(read(harness.ask(body)), (-32600,), 7)


@_register("hostile", "methods whose names begin with rpc. are reserved: -32601")
def _reserved(harness: Harness) -> None:
    expect_error(read(harness.ask(call("rpc.no-such-extension"))), (-32601,), 1)


@_register("hostile", "reply_to a queue of requests, or of the broker's own, is not answered")
def _reflection(harness: Harness) -> None:
    queues = [harness.raw.queue(f"conformance-{secrets.token_hex(6)}{end}") for end in ("_req", "_dead")]
    harness.raw.forget()
    for reply_to in [*queues, "amq.topic", harness.queue]:
        harness.send(SUBTRACT, reply_to=reply_to)
        for message in harness.raw.take(SILENCE):
            raise Fault(f"a request with reply_to {reply_to!r} was answered: {shown(message.body)}")
    harness.expect_alive()


@_register("hostile", "a reply_to that does not exist harms no one")
def _dead_end(harness: Harness) -> None:
    for reply_to in ("nobody-there", f"{DIRECT_REPLY_TO}.x", f"{DIRECT_REPLY_TO}.g2dkAAdub2RlQGE.k", "x" * 255):
        harness.raw.forget()
        harness.send(SUBTRACT, reply_to=reply_to)
        harness.expect_silence()


@_register("hostile", "a result in spite of headers of every type")
def _headers(harness: Harness) -> None:
    headers = {"a": [1, "x", None, {"b": [True]}], "t": 2**40, "": "", "é": 1.5, "x-death": "no", "CC": []}
    same(read(harness.ask(SUBTRACT, application_headers=headers)), RESULT)


@_register("hostile", "long texts and large bodies")
def _large(harness: Harness) -> None:
    numbers = list(range(50_000))
    response = read(harness.ask(call("sum", numbers)))
    same(response, {"jsonrpc": "2.0", "result": sum(numbers), "id": 1})
    expect_error(read(harness.ask(call("m" * 100_000))), (-32601,), 1)


# -- all checks ----------------------------------------------------------------------------------------------


def checks() -> list[Check]:
    """Return all checks, in the order in which they run."""
    wire = [check for check in _CHECKS if check.group == "wire"]
    hostile = [check for check in _CHECKS if check.group == "hostile"]
    return [
        *_example_checks(),
        *_id_checks(),
        *wire,
        *_kind_checks(),
        *_route_checks(),
        *_publish_checks(),
        *_junk_checks(),
        *hostile,
    ]
