"""
What hostile input costs, for each of its bytes: CPU time and memory.

``python -m tests.security.budget NAME`` measures one case in a process of its own.
"""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import NamedTuple

import pydantic

from jsonrpc_amqp import JsonRpcAmqpError, RemoteError
from jsonrpc_amqp.amqp import tables
from jsonrpc_amqp.jsonrpc import inspection, messages
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.wire.authorization import authorizer

from ..command import ROOT

MOST_NANOSECONDS, MOST_BYTES = 1000, 60
"""What docs/security.md promises, for each byte."""

SIZE = 4 << 20
# Multiples of it have the hash 0.
_MODULUS = 2**61 - 1


class Spent(NamedTuple):
    """What a case cost, for each byte: nanoseconds of CPU time, and bytes of memory at the peak."""

    nanoseconds: float
    bytes: float


class Case(NamedTuple):
    """
    One kind of input.

    Attributes:
        what: The description.
        make: Makes it, of about so many bytes.
        read: What reads it.
    """

    what: str
    make: Callable[[int], bytes]
    read: Callable[[bytes], object]


def _many(unit: bytes, size: int) -> bytes:
    return b"[%b]" % b",".join([unit] * (size // (len(unit) + 1)))


def _params(unit: bytes) -> Callable[[int], bytes]:
    return lambda size: b'{"jsonrpc":"2.0","method":"m","id":1,"params":%b}' % _many(unit, size)


def _result(unit: bytes) -> Callable[[int], bytes]:
    return lambda size: b'{"jsonrpc":"2.0","id":1,"result":%b}' % _many(unit, size)


def _responses(size: int, step: int) -> bytes:
    member = len(b'{"id":%d},' % (_MODULUS if step > 1 else 10**6))
    return b"[%b]" % b",".join(b'{"id":%d}' % (number * step) for number in range(1, size // member))


def _serve(body: bytes) -> None:
    Dispatcher(authorize=authorizer({"*.users.*.delete": "x", "*": "*"}), max_size=1 << 30)(body)


def _batch_of_one(body: bytes) -> None:
    with suppress(JsonRpcAmqpError):
        messages.parse_batch(body, [1])


def _call(body: bytes) -> None:
    with suppress(JsonRpcAmqpError):
        messages.result_of(body, 1)


def _gateway(body: bytes) -> None:
    with suppress(JsonRpcAmqpError):
        inspection.repair(inspection.read(body, max_batch=10_000), body, RemoteError(1, "m"))


def _headers(size: int) -> bytes:
    # An array with an empty one in it. RabbitMQ takes no more headers than fit in a frame.
    value = b"A\0\0\0\5A\0\0\0\0"
    entries = b"".join(b"\3%b%b" % (number.to_bytes(3, "big"), value) for number in range(min(size, 1 << 17) // 14))
    return pack(">I", len(entries)) + entries


@dataclass
class _Item:
    sku: str
    price: int


class _Model(pydantic.BaseModel):
    sku: str
    price: int
    items: list[_Model] = []


def _items(items: list[_Item]) -> None: ...
def _models(models: dict[str, list[_Model]]) -> None: ...
def _integers(*integers: int) -> None: ...


_typed = Dispatcher({"items": _items, "models": _models, "integers": _integers}, max_size=1 << 30)


def _mistakes(method: str, begin: bytes, unit: bytes, end: bytes) -> Callable[[int], bytes]:
    head = b'{"jsonrpc":"2.0","method":"%b","id":1,"params":[%b' % (method.encode(), begin)
    return lambda size: b"%b%b%b]}" % (head, b",".join([unit] * (size // (len(unit) + 1))), end)


_DEEP = b"[" * 95 + b"]" * 95
CASES = {
    "batch": Case("a batch of empty arrays", lambda size: _many(b"[]", size), _serve),
    "batch-of-one": Case("a batch with one member, of empty arrays", lambda size: b"[%b]" % _many(b"[]", size), _serve),
    "strings": Case("the same, of brackets in strings", lambda size: b"[%b]" % _many(b'"["', size), _serve),
    "arrays": Case("a call, params of empty arrays", _params(b"[]"), _serve),
    "objects": Case("a call, params of objects with one member", _params(b'{"":0}'), _serve),
    "deep": Case("a call, params 95 levels deep", _params(_DEEP), _serve),
    "floats": Case("a call, params of numbers with 23 digits", _params(b"1.2345678901234567890123e-300"), _serve),
    "integers": Case("a call, params of numbers with 4,300 digits", _params(b"1" * 4300), _serve),
    "calls": Case(
        "1,000 calls of no method, in a batch",
        lambda _size: _many(b'{"jsonrpc":"2.0","method":"","id":1}', 37_000),
        _serve,
    ),
    "hints": Case("a call, objects that are no dataclass of its hint", _mistakes("items", b"[", b"{}", b"]"), _typed),
    "models": Case("the same, of a model of pydantic", _mistakes("models", b'{"":[', b"{}", b"]}"), _typed),
    "more-models": Case("the same, in as many arrays", _mistakes("models", b"{", b'"":[{}]', b"}"), _typed),
    "arguments": Case("a call, texts by position for `*integers: int`", _mistakes("integers", b"", b'""', b""), _typed),
    "method": Case(
        "a call, the name of a method",
        lambda size: b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b".users." * (size // 7)),
        _serve,
    ),
    "headers": Case("headers with arrays of empty arrays", _headers, tables.read),
    "result": Case("a reply with a result of empty arrays", _result(b"[]"), _call),
    "ids": Case("a reply to a batch of one, of ids not asked for", lambda size: _responses(size, 1), _batch_of_one),
    "collisions": Case(
        "the same, of ids that collide in a hash table", lambda size: _responses(size, _MODULUS), _batch_of_one
    ),
    "gateway": Case(
        "a batch of 10,000 calls to a gateway, of such ids",
        lambda _size: b"[%b]" % b",".join(b'{"id":%d}' % (number * _MODULUS) for number in range(1, 10_001)),
        _gateway,
    ),
}


def measure(name: str) -> Spent:
    """Measure a case in a process of its own."""
    command = [sys.executable, "-m", "tests.security.budget", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    nanoseconds, size = map(float, done.stdout.split())
    return Spent(nanoseconds, size)


def _resident(which: str) -> int:
    """Return the resident memory of this process: "VmRSS" is that of now, "VmHWM" its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:")) << 10


def _main(name: str) -> None:
    logging.disable()
    case = CASES[name]
    for size in (1 << 10, SIZE):  # the first time, what is imported and cached once
        text = case.make(size)
        gc.collect()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        before, began = _resident("VmRSS"), time.thread_time_ns()
        case.read(text)
        spent = time.thread_time_ns() - began
    print(spent / len(text), max(_resident("VmHWM") - before, 0) / len(text))


if __name__ == "__main__":
    _main(sys.argv[1])
