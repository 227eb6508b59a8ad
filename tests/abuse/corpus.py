"""
Hostile messages.

``BODIES`` are invalid as requests and as replies; ``REQUESTS`` and ``REPLIES`` resemble valid ones. A case is a list of
messages to send.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

CAP = 16 << 20
ESCAPES = "\x1b[2J\x1b]0;gone\x07\r\nroot: all is well\u202e\x9b31m"
MARK = "/tmp/jsonrpc-amqp-abuse-was-here"
"""A folder that would be created if anything in the corpus were executed."""


@dataclass(frozen=True)
class Message:
    """
    One message.

    Attributes:
        tail: The end of its routing key, after ``S.request``; None: a usual one.
        to_queue: It is sent to the queue by its name, through the default exchange.
        properties: Properties by pika's names, including ``headers``.
        rejected: The broker rejects it, and closes the channel; None: some versions of it do.
        times: How often it is sent.
    """

    body: bytes
    tail: str | None = None
    to_queue: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)
    rejected: bool | None = False
    times: int = 1


Case = list[Message]


class _Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


PICKLE = pickle.dumps(_Exploit())
YAML = f"!!python/object/apply:os.mkdir ['{MARK}']\n".encode()
# 64 MB of it, so that decompression would be noticed.
BOMB = b" " * (64 << 20)
BOMBS = {"gzip": gzip.compress(BOMB), "deflate": zlib.compress(BOMB), "bzip2": bz2.compress(BOMB)}


def call(method: Any = "add", params: Any = (1, 2), id: Any = 1, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": id, **more}).encode()


def raw(params: str = "[1, 2]", id: str = "1", method: str = '"add"') -> bytes:
    return f'{{"jsonrpc": "2.0", "method": {method}, "params": {params}, "id": {id}}}'.encode("utf-8", "surrogatepass")


def deep(levels: int, begin: str = "[", end: str = "]") -> str:
    return begin * levels + end * levels


# -- bodies ---------------------------------------------------------------------------------------------------

GOOD = call()
BODIES: dict[str, bytes] = {
    "no bytes": b"",
    "one byte": b"\x00",
    "a quote": b'"',
    "invalid UTF-8": b'{"jsonrpc": "2.0", "method": "\xff\xfe\xc0\x80"}',
    "overlong UTF-8": b'"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf"',
    "surrogates in UTF-8": b'"\xed\xa0\x80\xed\xb0\x80"',
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16, big-endian, no mark": GOOD.decode().encode("utf-16-be"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "truncated": GOOD[:-9],
    "truncated within an escape": b'{"jsonrpc": "2.0", "method": "\\u00',
    "two values": GOOD + GOOD,
    "followed by a NUL": GOOD + b"\0",
    "a comment": b"/* hello */" + GOOD,
    "single quotes": GOOD.replace(b'"', b"'"),
    "10,000 levels of arrays": deep(10_000).encode(),
    "10,000 levels of objects": deep(10_000, '{"a":', "}").replace('{"a":}', "{}").encode(),
    "10,000 levels in a string": json.dumps(deep(10_000)).encode(),
    "a million brackets": b"[" * 1_000_000,
    "a million closing brackets": b"]" * 1_000_000,
    "a million quotes": b'"' * 1_000_001,
    "a million backslashes": b'"' + b"\\" * 1_000_001,
    "a string of 4 MB": json.dumps("x" * (4 << 20)).encode(),
    "an array of a million numbers": b"[" + b"1," * 1_000_000 + b"1]",
    "an object of 100,000 members": json.dumps({str(number): number for number in range(100_000)}).encode(),
    "100,000 times the same member": b"{" + b'"a":1,' * 100_000 + b'"a":1}',
    "100,000 empty members of a batch": b"[" + b"{}," * 99_999 + b"{}]",
    "5 million empty batches in a batch": b"[" + b"[]," * 5_000_000 + b"[]]",
    "100,000 numbers of 23 digits": b"[" + b"1.2345678901234567890123e-300," * 100_000 + b"1]",
    "1,000 empty batches in a batch": b"[" + b"[]," * 999 + b"[]]",
    "NaN": b'{"jsonrpc": "2.0", "result": NaN, "method": "add", "id": NaN}',
    "Infinity": b"-Infinity",
    "an exponent of 400": b"1e400",
    "an exponent of a billion": b"1e1000000000",
    "an exponent of minus a billion": b"[1e-1000000000]",
    "an exponent of 100,000 digits": b"1e" + b"9" * 100_000,
    "10,000 digits": b"[" + b"7" * 10_000 + b"]",
    "a million digits": b"[" + b"7" * 1_000_000 + b"]",
    "a million decimals": b"[0." + b"7" * 1_000_000 + b"]",
    "at the cap": b" " * CAP,
    "one byte over the cap": b" " * (CAP + 1),
    "twice the cap": b"[" * (2 * CAP),
    "pickle": PICKLE,
    "YAML": YAML,
    **{f"a bomb, {name}": bomb for name, bomb in BOMBS.items()},
    "terminal escapes": ESCAPES.encode(),
}

TYPES: dict[str, Any] = {
    "a boolean": True,
    "8 bits": pow(2, 7) - 1,
    "64 bits": -pow(2, 63),
    "a decimal": Decimal("3.14"),
    "a time": datetime(2038, 1, 19, tzinfo=UTC).replace(tzinfo=None),
    "a table": {"a": {"b": {"c": [1, "x", None, b"\xff"]}}},
    "an array": [1, [2, [3, [4]]], {"x": ["y"]}],
    "bytes": b"\xff\xfe\x00",
    "text": ESCAPES,
    "nothing": None,
    "a float": 1e300,
}


def large(size: int, *, other: int) -> dict[str, str]:
    """Return headers that make the header frame of a message this large, with so many bytes of other properties."""
    # Class, weight, size of the body and flags; the length of the table, and all of its entry but the text.
    return {"x": "A" * (size - 14 - 4 - 7 - other)}


# Bytes in a frame that was agreed on, and what RabbitMQ takes beyond that.
LARGE = (131_064, 131_065, 131_072)


def nested(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels):
        table = {"x": table}
    return table


# -- requests ---------------------------------------------------------------------------------------------------

_ENCODINGS: dict[str, dict[str, Any]] = {
    "compression": {"headers": {"compression": "application/x-bz2"}},
    "content_encoding bzip2": {"content_encoding": "bzip2"},
    "content_encoding gzip": {"content_encoding": "gzip"},
}
_CONTENT_TYPES = {
    "application/x-python-serialize": PICKLE,
    "application/x-yaml": YAML,
    "application/x-msgpack": b"\xdf\xff\xff\xff\xff",
    "text/plain; charset=utf-7": b"+AFs-1+AF0-",
    ESCAPES[:200]: GOOD,
}
_METHODS = [
    "__class__",
    "__init__",
    "a.__init__",
    "add.__globals__",
    "add.__call__",
    "__import__",
    "self",
    "methods",
    "register",
    "stop",
    "rpc.discover",
    "rpc.",
    "",
    " add",
    "add\0",
    "ADD",
    "*",
    "#",
    "../../etc/passwd",
    "'; drop table methods",
    ESCAPES,
]
_PARAMS: dict[str, Any] = {
    "self": {"self": 1, "a": 1, "b": 2},
    "names of the machinery": {"args": [], "kwargs": {}, "context": 1, "function": 1, "name": "x"},
    "special names of Python": {"__class__": 1, "__dict__": 2},
    "names that are not identifiers": {"a b": 1, "": 2, "\n": 3, "a=1": 4},
    "too many": list(range(10_000)),
    "too many names": {f"p{number}": 0 for number in range(10_000)},
    "__type__": [{"__type__": "uuid", "__value__": {"hex": "x"}}, {"__type__": "decimal"}],
    "__proto__": [{"__proto__": {"polluted": 1}}, {"constructor": {"prototype": {"x": 1}}}],
    "__reduce__": [{"py/object": "os.system", "py/reduce": ["x"]}, {"$ref": "#"}],
}
_IDS = ["null", "true", "1.5", "-0.0", "[]", "{}", "[1]", '{"a": 1}', '""', '"*"', '"#"', '"a.b.c"', '"request"', "1e2"]
_TAILS = ["", ".", "..", ".#", ".*", ".*.#", ".q538", ".a b", ".ü\u202e", "." + "x" * 200, ".a..b.", ".request.request"]
# Bytes of the content type among the properties.
_TYPE = 1 + len("application/json")
# The broker rejects it from a channel without a consumer of direct reply-to.
_NO_CONSUMER = "amq.rabbitmq.reply-to"
_REPLY_TO = [
    "",
    "abuse_req",
    "other_req",
    "abuse_dead",
    "amq.topic",
    "amq.rabbitmq.log",
    "amq.gen-unused",
    "unused",
    "*",
    "x" * 255,
    ESCAPES[:60],
    _NO_CONSUMER,
    "amq.rabbitmq.reply-to.",
    "amq.rabbitmq.reply-to.x",
    "amq.rabbitmq.reply-to.g2dkAAdub2RlQGE.k",
    "amq.rabbitmq.reply-to." + "A" * 200,
]
_TIMEOUTS = [0, -1, 1, 2**31, 2**32, 2**63 - 1, -(2**63), "1", "", "NaN", True, 1.5, None, [1], {"a": 1}, b"\xff"]

REQUESTS: dict[str, Case] = {
    **{f"body: {name}": [Message(body)] for name, body in BODIES.items()},
    **{f"bomb, {name}": [Message(BOMBS["bzip2"], properties=each)] for name, each in _ENCODINGS.items()},
    **{
        f"content type {name[:30]!a}": [Message(body, properties={"content_type": name})]
        for name, body in _CONTENT_TYPES.items()
    },
    **{f"method {name!a}": [Message(call(name))] for name in _METHODS},
    "a method of 1 MB": [Message(call("m" * (1 << 20)))],
    "a method of 257 bytes": [Message(call("m" * 257))],
    "a notification of a method of 1 MB": [Message(call("m" * (1 << 20)).replace(b', "id": 1', b""))],
    "a method that is an array": [Message(call(["add"]))],
    **{f"params: {name}": [Message(call(params=params))] for name, params in _PARAMS.items()},
    "params that are text": [Message(call(params="ab"))],
    "params of a million empty arrays": [Message(raw(f"[{'[],' * 1_000_000}[]]"))],
    "params 99 levels deep": [Message(raw(f"[{deep(97)}]"))],
    "params 5,000 levels deep": [Message(raw(f"[{deep(5_000)}]"))],
    "an echo of 15 MB": [Message(call("echo", ["x" * (15 << 20)]))],
    "an echo of terminal escapes": [Message(call("echo", [ESCAPES]))],
    "an error with terminal escapes": [Message(call("fail", [ESCAPES]))],
    "a notification that fails with terminal escapes": [Message(call("fail", [ESCAPES]).replace(b', "id": 1', b""))],
    "a huge number": [Message(raw("[" + "9" * 4000 + ", 1]"))],
    "lone surrogates": [Message(raw('["\\ud800", "\\udc00"]'))],
    "a NUL in a name": [Message(raw(method='"add\\u0000"'))],
    **{f"id {id}": [Message(raw(id=id))] for id in _IDS},
    "an id of 1 MB": [Message(call(id="i" * (1 << 20)))],
    "an id of 4,000 digits": [Message(raw(id="9" * 4000))],
    "an id of 5,000 digits": [Message(raw(id="9" * 5000))],
    "an id of terminal escapes": [Message(call("none", id=ESCAPES))],
    "no version": [Message(b'{"method": "add", "params": [1, 2], "id": 1}')],
    "a version of 1 MB": [Message(call(jsonrpc="2" * (1 << 20)))],
    "members twice": [Message(b'{"jsonrpc": "1.0", "jsonrpc": "2.0", "method": "none", "method": "add", "id": 1}')],
    "a batch of 1,000 that fail": [Message(b"[" + b",".join([call("none")] * 1000) + b"]")],
    "a batch of 1,000 of the same id": [Message(b"[" + b",".join([GOOD] * 1000) + b"]")],
    "a batch of 100,000": [Message(b"[" + b",".join([GOOD] * 100_000) + b"]")],
    "a batch of large responses": [Message(b"[" + b",".join([call("grow", [1 << 20])] * 100) + b"]")],
    "a batch of 1 MB ids": [Message(b"[" + b",".join([call(id="i" * (1 << 20))] * 14) + b"]")],
    "a response": [Message(b'{"jsonrpc": "2.0", "result": 1, "id": 1}')],
    **{f"header of {name}": [Message(GOOD, properties={"headers": {"x": value}})] for name, value in TYPES.items()},
    "headers of every type": [Message(GOOD, properties={"headers": dict(TYPES)})],
    "10,000 headers": [Message(GOOD, properties={"headers": {f"h{number}": number for number in range(10_000)}})],
    **{
        f"headers of {size:,} bytes": [Message(GOOD, properties={"headers": large(size, other=_TYPE)})]
        for size in LARGE
    },
    "headers 200 levels deep": [Message(GOOD, properties={"headers": nested(200)})],
    "header names of escapes": [Message(GOOD, properties={"headers": {ESCAPES[:50]: ESCAPES}})],
    "headers of the broker": [
        Message(GOOD, properties={"headers": {"x-death": [{"count": 2**62}], "x-delivery-count": 2**62}})
    ],
    **{f"timeout-ms {value!a}": [Message(GOOD, properties={"headers": {"timeout-ms": value}})] for value in _TIMEOUTS},
    **{f"expiration {text}": [Message(GOOD, properties={"expiration": text})] for text in ("0", "1", "4294967295")},
    **{
        f"expiration {text!a}": [Message(GOOD, properties={"expiration": text}, rejected=True)]
        for text in ("-1", "soon", "1e3", "315360000001", "9" * 200)
    },
    **{
        f"reply_to {name[:40]!a}": [Message(GOOD, properties={"reply_to": name}, rejected=name == _NO_CONSUMER)]
        for name in _REPLY_TO
    },
    **{f"key S.request{tail[:30]!a}": [Message(GOOD, tail)] for tail in _TAILS},
    "to the queue by its name": [Message(GOOD, to_queue=True)],
    "a correlation_id of escapes": [Message(GOOD, properties={"correlation_id": ESCAPES})],
    "a correlation_id of 255 bytes": [Message(GOOD, properties={"correlation_id": "x" * 255})],
    "a correlation_id that is not UTF-8": [Message(GOOD, properties={"correlation_id": b"\xff\xfe"})],
    "every other property": [
        Message(
            GOOD,
            properties={
                "priority": 255, "delivery_mode": 2, "message_id": ESCAPES, "timestamp": 2**63 - 1, "type": ESCAPES,
                "app_id": ESCAPES, "cluster_id": ESCAPES,
            },
        )
    ],
    "a delivery_mode of 9": [Message(GOOD, properties={"delivery_mode": 9}, rejected=None)],
    "the name of another": [Message(GOOD, properties={"user_id": "root"}, rejected=True)],
    "2,000 times invalid JSON": [Message(b"{", times=2000)],
    "2,000 notifications without a method": [Message(call("none").replace(b', "id": 1', b""), times=2000)],
    "2,000 that cannot be answered": [Message(GOOD, properties={"reply_to": "other_req"}, times=2000)],
}  # fmt: skip


# -- replies ----------------------------------------------------------------------------------------------------


def response(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "ID", **members}).encode().replace(b'"ID"', b"ID")


_ERRORS: dict[str, Any] = {
    "no object": 1,
    "empty": {},
    "a code that is text": {"code": "1", "message": "m"},
    "a code with a fraction": {"code": 1.5, "message": "m"},
    "a code of true": {"code": True, "message": "m"},
    "a huge code": {"code": 10**4000, "message": "m"},
    "no message": {"code": 1},
    "a message that is an object": {"code": 1, "message": {}},
    "a message of 4 MB": {"code": 1, "message": "m" * (4 << 20)},
    "terminal escapes": {"code": 1, "message": ESCAPES, "data": ESCAPES},
    "special names of Python": {
        "code": -32000,
        "message": "m",
        "data": {"__class__": "os.system", "__type__": "uuid"},
    },
}
_RESULTS: dict[str, Any] = {
    "__type__": {"__type__": "uuid", "__value__": "x"},
    "__proto__": {"__proto__": {"x": 1}},
    "terminal escapes": ESCAPES,
    "15 MB": "x" * (15 << 20),
    "a million numbers": list(range(1_000_000)),
    "300,000 empty arrays": [[]] * 300_000,
}

REPLIES: dict[str, Case] = {
    **{f"body: {name}": [Message(body)] for name, body in BODIES.items()},
    **{f"bomb, {name}": [Message(BOMBS["bzip2"], properties=each)] for name, each in _ENCODINGS.items()},
    **{
        f"content type {name[:30]!a}": [Message(body, properties={"content_type": name})]
        for name, body in _CONTENT_TYPES.items()
    },
    **{f"error: {name}": [Message(response(error=error))] for name, error in _ERRORS.items()},
    **{f"result: {name}": [Message(response(result=result))] for name, result in _RESULTS.items()},
    **{f"id {id}": [Message(b'{"jsonrpc": "2.0", "result": 1, "id": %b}' % id.encode())] for id in _IDS},
    "an id of 1 MB": [Message(response(result=1, id="i" * (1 << 20)))],
    "an id of 4,000 digits": [Message(b'{"jsonrpc": "2.0", "result": 1, "id": %b}' % (b"9" * 4000))],
    "a result and an error": [Message(response(result=1, error={"code": 1, "message": "m"}))],
    "neither": [Message(response())],
    "no version": [Message(b'{"result": 1, "id": ID}')],
    "a request": [Message(GOOD)],
    "a batch": [Message(b"[" + response(result=1) + b"]")],
    "a batch of 100,000": [Message(b"[" + b",".join([response(result=1)] * 100_000) + b"]")],
    "a batch of 16,000 ids that collide": [
        Message(b"[" + b",".join(b'{"id":%d}' % (number * (2**61 - 1)) for number in range(1, 16_001)) + b"]")
    ],
    "a result 5,000 levels deep": [Message(b'{"jsonrpc": "2.0", "id": ID, "result": %b}' % deep(5_000).encode())],
    **{
        f"header of {name}": [Message(response(result=1), properties={"headers": {"x": value}})]
        for name, value in TYPES.items()
    },
    **{
        # A correlation_id of up to four bytes.
        f"headers of {size:,} bytes": [
            Message(response(result=1), properties={"headers": large(size, other=_TYPE + 5)})
        ]
        for size in LARGE
    },
    "a header x-death": [Message(response(result=1), properties={"headers": {"x-death": []}})],
    "headers 200 levels deep": [Message(response(result=1), properties={"headers": nested(200)})],
    "no correlation_id": [Message(response(result=1), properties={"correlation_id": None})],
    "a correlation_id of escapes": [Message(response(result=1), properties={"correlation_id": ESCAPES})],
    "a correlation_id that is not UTF-8": [Message(response(result=1), properties={"correlation_id": b"\xff\xfe"})],
    "another key": [Message(response(result=1), tail=".other")],
    "another key, of escapes": [Message(response(result=1), tail="." + ESCAPES[:40])],
    "directly to the queue": [Message(response(result=1), to_queue=True)],
    "1,000 times": [Message(response(result=1), times=1000)],
    "1,000 times invalid JSON": [Message(b"{", times=1000)],
    "1,000 replies to no call": [Message(response(result=1), properties={"correlation_id": ESCAPES}, times=1000)],
}
