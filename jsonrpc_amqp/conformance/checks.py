"""What is checked: each by a name of its own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, NamedTuple

from ..amqp.base import DIRECT_REPLY_TO
from ..wire.names import MAX_KEY_BYTES
from .bench import (
    DIFFERENT,
    RESULT,
    SILENCE,
    SUBTRACT,
    Bench,
    Fault,
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
# ``user_id`` is the server's own: the broker lets no other pass.
_ANSWER_PROPERTIES = {"content_type", "delivery_mode", "correlation_id", "expiration", "user_id"}


class Check(NamedTuple):
    """One thing to check; ``run`` raises ``Fault``."""

    group: str
    name: str
    run: Callable[[Bench], None]


# -- the specification's examples ---------------------------------------------------------------------------


def _examples() -> Iterator[Check]:
    for example in _vectors("specification")["examples"]:
        yield Check("specification", example["description"], partial(_example, example=example))


def _example(bench: Bench, example: Mapping[str, Any]) -> None:
    if example["response"] is None:
        bench.probe.forget()
        bench.send(example["request"].encode())
        bench.expect_silence()
    else:
        same_response(read(bench.ask(example["request"].encode())), example["response"])


# -- the test vectors ---------------------------------------------------------------------------------------


def _vectors(name: str) -> Any:
    return json.loads((files("jsonrpc_amqp") / "vectors" / f"{name}.json").read_text("utf-8"))


def _of_rule(name: str, rule: str) -> Iterator[Mapping[str, Any]]:
    return (case for case in _vectors(name)["cases"] if case["rule"] == rule)


def _kinds() -> Iterator[Check]:
    for case in _of_rule("requests", "kind"):
        yield Check("vectors", case["name"], partial(_kind, case=case))


def _kind(bench: Bench, case: Mapping[str, Any]) -> None:
    inputs = case["inputs"]
    body = bytes.fromhex(inputs["body_hex"]) if "body_hex" in inputs else inputs["body"].encode()
    bench.probe.forget()
    bench.send(body)
    if case["expected"]["kind"] == "notification":
        bench.expect_silence()
        return
    # None of these names a method, so each is answered with errors.
    response = read(bench.answer())
    members = response if isinstance(response, list) else [response]
    if not members:
        raise Fault("the answer is an empty array")
    for member in members:
        expect_error(member, (-32700, -32600, -32601), member.get("id") if isinstance(member, dict) else None)
    bench.expect_alive()


def _routes() -> Iterator[Check]:
    for case in _of_rule("keys", "reply"):
        there = case["inputs"]["delivery"]
        mirrored = there["exchange"] == "jsonrpc" and there["routing_key"].startswith("S.request.")
        if mirrored and there["reply_to"] is None and case["expected"]["route"] is not None:
            yield Check("vectors", case["name"], partial(_mirrored, key=there["routing_key"]))


def _mirrored(bench: Bench, key: str) -> None:
    tail = key.removeprefix("S.request.")
    request, response = f"{bench.service}.request.{tail}", f"{bench.service}.response.{tail}"
    if len(response) > MAX_KEY_BYTES:
        tail = tail[: MAX_KEY_BYTES - len(response)]
        request, response = f"{bench.service}.request.{tail}", f"{bench.service}.response.{tail}"
    bench.probe.bind(bench.exchange, response)
    answer = bench.ask(SUBTRACT, key=request)
    if (answer.exchange, answer.routing_key) != (bench.exchange, response):
        raise Fault(f"it was published to {answer.routing_key!r}, where {response!r} is due")
    same(read(answer), RESULT)


def _publishes() -> Iterator[Check]:
    for case in _of_rule("answers", "publish"):
        if case["expected"] is not None and (case["inputs"]["seconds"] is None or case["inputs"]["seconds"] >= 1):
            yield Check("vectors", f"answer, {case['name']}", partial(_publish, case=case))


def _publish(bench: Bench, case: Mapping[str, Any]) -> None:
    inputs, wanted = case["inputs"], dict(case["expected"]["properties"])
    properties = dict(inputs["request"]["properties"])
    properties.pop("user_id", None)  # the broker takes no other than ours
    headers = dict(properties.pop("headers", {}))
    if inputs["seconds"] is not None:
        headers["timeout-ms"] = round(inputs["seconds"] * 1000)
    if headers:
        properties["application_headers"] = headers
    if "reply_to" in properties:
        direct = properties["reply_to"].startswith(DIRECT_REPLY_TO)
        properties["reply_to"] = DIRECT_REPLY_TO if direct else bench.probe.replies
    by_queue = inputs["request"]["exchange"] == ""
    where = {"exchange": "", "key": bench.queue} if by_queue else {}
    answer = bench.ask(SUBTRACT, **{"correlation_id": None, **properties, **where})
    same(read(answer), RESULT)
    got = dict(answer.properties)
    got.pop("user_id", None)  # may be there or not
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


def _check(group: str, name: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    def register(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        _CHECKS.append(Check(group, name, run))
        return run

    return register


def _ids() -> Iterator[Check]:
    for id in (1, 0, -5, 2**53, "1", "q538", "a.b", "", "ü😀", "x" * 300, 1.5, None):
        shown = written(id) if len(str(id)) < 20 else "a string of 300 characters"
        yield Check("wire", f"the id {shown} comes back", partial(_id, id=id))


def _id(bench: Bench, id: Json) -> None:
    same(read(bench.ask(call("subtract", [42, 23], id))), {"jsonrpc": "2.0", "result": 19, "id": id})
    expect_error(read(bench.ask(call("absent", id=id))), (-32601,), id)


@_check("wire", "correlation_id comes back, whatever it is")
def _correlation(bench: Bench) -> None:
    for text in ("1", "c" * 255, "ü 😀", "a.b#*"):
        got = bench.ask(SUBTRACT, correlation_id=text).properties.get("correlation_id")
        if got != text:
            raise Fault(DIFFERENT.format(field="correlation_id", got=repr(got), wanted=repr(text)))
    if "correlation_id" in bench.ask(SUBTRACT, correlation_id=None).properties:
        raise Fault("the answer has a correlation_id where the request had none")


@_check("wire", "an answer has the properties that are due, and no other")
def _properties(bench: Bench) -> None:
    got = bench.ask(SUBTRACT, application_headers={"timeout-ms": 5000, "trace": "x"}, message_id="m").properties
    for name, wanted in (("content_type", "application/json"), ("content_encoding", None), ("delivery_mode", 1)):
        if got.get(name) != wanted:
            raise Fault(DIFFERENT.format(field=name, got=repr(got.get(name)), wanted=wanted or "nothing"))
    if more := set(got) - _ANSWER_PROPERTIES:
        raise Fault(f"the answer has {', '.join(sorted(more))} as well")
    _check_expiration(got.get("expiration"), 5000)


@_check("wire", "content_type and content_encoding of a request change nothing")
def _encodings(bench: Bench) -> None:
    for type_ in (None, "text/plain", "application/json-rpc", "application/x-python-serialize"):
        for encoding in (None, "gzip", "utf-8", "binary"):
            answer = bench.ask(SUBTRACT, content_type=type_, content_encoding=encoding)
            same(read(answer), RESULT, f"with {type_} and {encoding}: ")


@_check("wire", "a timeout-ms that makes no sense is ignored")
def _bad_timeout(bench: Bench) -> None:
    for value in ("soon", -1, 0, True, {"a": 1}):
        answer = bench.ask(SUBTRACT, application_headers={"timeout-ms": value})
        same(read(answer), RESULT, f"with {value!r}: ")


@_check("wire", "reply_to a queue of the client, over the exchange")
def _reply_queue(bench: Bench) -> None:
    _expect_reply(bench, bench.probe.queue(f"replies-{secrets.token_hex(6)}"))


@_check("wire", "reply_to a queue of the client, from a request by the queue's name")
def _reply_queue_by_name(bench: Bench) -> None:
    _expect_reply(bench, bench.probe.replies, exchange="", key=bench.queue)


@_check("wire", "direct reply-to, over the exchange")
def _direct(bench: Bench) -> None:
    _expect_reply(bench, DIRECT_REPLY_TO)


@_check("wire", "direct reply-to, from a request by the queue's name")
def _direct_by_name(bench: Bench) -> None:
    _expect_reply(bench, DIRECT_REPLY_TO, exchange="", key=bench.queue)


def _expect_reply(bench: Bench, reply_to: str, **where: Any) -> None:
    answer = bench.ask(SUBTRACT, reply_to=reply_to, correlation_id="a.b", **where)
    same(read(answer), RESULT)
    if answer.queue != reply_to or (answer.exchange and reply_to != DIRECT_REPLY_TO):
        raise Fault(f"the answer went to {answer.routing_key!r} on exchange {answer.exchange!r}, and not to reply_to")
    if answer.properties.get("correlation_id") != "a.b":
        raise Fault(DIFFERENT.format(field="correlation_id", got=answer.properties.get("correlation_id"), wanted="a.b"))
    bench.expect_no_more()


@_check("wire", "many calls at once, each with its own answer")
def _many(bench: Bench) -> None:
    bench.probe.forget()
    wanted = {}
    for number in range(_MANY):
        key = bench.send(call("subtract", [number, 1], number))
        wanted[key.replace(".request.", ".response.", 1)] = {"jsonrpc": "2.0", "result": number - 1, "id": number}
    came = bench.probe.take(bench.timeout + 5, until=_MANY)
    if len(came) != _MANY:
        raise Fault(f"{len(came)} of {_MANY} answers came")
    for answer in came:
        if answer.routing_key not in wanted:
            raise Fault(f"an answer was published to {answer.routing_key!r}, twice or by mistake")
        same(read(answer), wanted.pop(answer.routing_key))


@_check("wire", "params by position and by name, too few, too many, and unknown")
def _params(bench: Bench) -> None:
    for params in ([42, 23], {"subtrahend": 23, "minuend": 42}):
        same(read(bench.ask(call("subtract", params))), RESULT)
    for params in ([42], [42, 23, 1], {"minuend": 42}, {"minuend": 42, "subtrahend": 23, "x": 1}, {"a": 1, "b": 2}):
        expect_error(read(bench.ask(call("subtract", params))), (-32602,), 1)


@_check("wire", "a request is done with once")
def _once(bench: Bench) -> None:
    for body in (SUBTRACT, b"{"):
        bench.ask(body)
        bench.expect_no_more()
    waiting = bench.probe.waiting(bench.queue)
    if waiting:
        raise Fault(f"{waiting} requests wait in the queue: they were given back")


# -- hostile ------------------------------------------------------------------------------------------------


def _junk() -> Iterator[Check]:
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
        yield Check("hostile", f"{name}: -32700", partial(_unparsable, body=body))


def _unparsable(bench: Bench, body: bytes) -> None:
    expect_error(read(bench.ask(body)), (-32700,), None)
    expect_error(read(bench.ask(body, reply_to=DIRECT_REPLY_TO)), (-32700,), None)
    bench.expect_alive()


@_check("hostile", "ids and params of the wrong type: -32600")
def _wrong_types(bench: Bench) -> None:
    for id in ([4], {"a": 1}, True):
        expect_error(read(bench.ask(call("subtract", [42, 23], id))), (-32600,), None)
    for params in (b"null", b"5", b'"ab"'):
        body = b'{"jsonrpc": "2.0", "method": "sum", "params": %b, "id": 7}' % params
        expect_error(read(bench.ask(body)), (-32600,), 7)


@_check("hostile", "methods whose names begin with rpc. are reserved: -32601")
def _reserved(bench: Bench) -> None:
    expect_error(read(bench.ask(call("rpc.no-such-extension"))), (-32601,), 1)


@_check("hostile", "reply_to a queue of requests, or of the broker's own, is not answered")
def _reflection(bench: Bench) -> None:
    queues = [bench.probe.queue(f"conformance-{secrets.token_hex(6)}{end}") for end in ("_req", "_dead")]
    bench.probe.forget()
    for reply_to in [*queues, "amq.topic", bench.queue]:
        bench.send(SUBTRACT, reply_to=reply_to)
        for came in bench.probe.take(SILENCE):
            raise Fault(f"a request with reply_to {reply_to!r} was answered: {shown(came.body)}")
    bench.expect_alive()


@_check("hostile", "a reply_to that does not exist harms nobody")
def _dead_end(bench: Bench) -> None:
    for reply_to in ("nobody-there", f"{DIRECT_REPLY_TO}.x", f"{DIRECT_REPLY_TO}.g2dkAAdub2RlQGE.k", "x" * 255):
        bench.probe.forget()
        bench.send(SUBTRACT, reply_to=reply_to)
        bench.expect_silence()


@_check("hostile", "a result in spite of headers of every type")
def _headers(bench: Bench) -> None:
    headers = {"a": [1, "x", None, {"b": [True]}], "t": 2**40, "": "", "é": 1.5, "x-death": "no", "CC": []}
    same(read(bench.ask(SUBTRACT, application_headers=headers)), RESULT)


@_check("hostile", "long texts and large bodies")
def _large(bench: Bench) -> None:
    numbers = list(range(50_000))
    response = read(bench.ask(call("sum", numbers)))
    same(response, {"jsonrpc": "2.0", "result": sum(numbers), "id": 1})
    expect_error(read(bench.ask(call("m" * 100_000))), (-32601,), 1)


# -- all of it ----------------------------------------------------------------------------------------------


def checks() -> list[Check]:
    """Give all checks, in the order in which they are run."""
    written = [check for check in _CHECKS if check.group == "wire"]
    hostile = [check for check in _CHECKS if check.group == "hostile"]
    return [*_examples(), *_ids(), *written, *_kinds(), *_routes(), *_publishes(), *_junk(), *hostile]
