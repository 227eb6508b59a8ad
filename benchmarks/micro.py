"""
Measures the steps of a call within the process, in time and in instructions, against a baseline.

    python -m benchmarks.micro              measure, and show the baseline beside it
    python -m benchmarks.micro --check      fail if a step is worse than the baseline by more than the tolerance
    python -m benchmarks.micro --write      write a new baseline for this version of Python

Each figure is a multiple of a yardstick, a fixed piece of Python that is measured along with the steps, so that figures
of different machines can be compared. Time is the best of many short slices taken in turn, on which other load has
little effect. Instructions are counted by valgrind, where it is installed; their number hardly varies, so they show
smaller changes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import make_dataclass
from itertools import cycle, repeat
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import msgspec

from .processes import ROOT

BASELINE = Path(__file__).with_name("baseline.json")
YARDSTICK = "yardstick"

# Relative to the baseline. Time covers the noise left in the best of many slices, and differences between compilers;
# instructions cover differences between builds of one version of Python.
TIME_TOLERANCE = 0.30
INSTRUCTION_TOLERANCE = 0.05

_SLICE = 0.004  # seconds; shorter than the time slice of the kernel's scheduler
_SLICES = 100
_OTHERS = 10_000
_WARM_UP = 200  # runs after which the interpreter has specialised the code
_COUNTED = 1100  # runs; enough to include what happens once in a thousand calls

Step = Callable[[], object]


# -- what is measured -----------------------------------------------------------------------------------------


def steps() -> dict[str, Step]:
    """Return all steps. Only this function imports the package."""
    from jsonrpc_amqp.amqp.base import Delivery
    from jsonrpc_amqp.amqp.decoder import Decoder
    from jsonrpc_amqp.amqp.encoder import Encoder
    from jsonrpc_amqp.client.call import WaitingCall
    from jsonrpc_amqp.client.pending import Pending
    from jsonrpc_amqp.jsonrpc import messages
    from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
    from jsonrpc_amqp.wire.names import client_word
    from jsonrpc_amqp.wire.publish import Address, call_message, reply_message
    from jsonrpc_amqp.wire.reply_route import reply_route

    def waiting_calls(first: int, count: int) -> list[WaitingCall]:
        calls = []
        for number in range(first, first + count):
            call = WaitingCall("example", b"", qid="1", deadline=now + 30 + number / 1000, timeout=30.0)
            call.number = str(number)
            calls.append(call)
        return calls

    def add_and_pop(pending: Pending) -> Step:
        # Take many calls in turn: Pending relies on numbers not being reused soon.
        calls = cycle(waiting_calls(_OTHERS, 4096))

        def step() -> object:
            call = next(calls)
            pending.add(call)
            return pending.pop(call.number)

        return step

    now = 1000.0
    encoder = Encoder(frame_max=131072)
    decoder = Decoder(max_body=1 << 20, frame_max=131072)
    dispatcher = Dispatcher({"add": lambda a, b: a + b})
    hinted = Dispatcher({"add": _add})
    wrapped = Dispatcher({"add": _add}, middleware=[_pass_on])
    record = {f"field{number}": number if number % 2 else str(number) for number in range(20)}
    large = Dispatcher({"keep": _keep})
    large_request = messages.request("keep", [record], 17)
    assert b'"result":null' in (large(large_request) or b"")
    address = Address("jsonrpc", "example", client_word("guest", "0123456789ab"), user="guest")
    request = messages.request("add", [3, 4], 17)
    response = dispatcher(request)
    assert response is not None

    def describe_call() -> Any:
        return call_message(address, request, number="17", qid="17", deadline=now + 30, now=now)

    described = describe_call()
    request_frames = _delivered(encoder.publish(1, described), described.exchange, described.routing_key)
    [delivery] = decoder.feed(request_frames)
    assert isinstance(delivery, Delivery)
    route = reply_route(delivery, service="example", exchange="jsonrpc")
    assert route is not None

    def find_route() -> object:
        return reply_route(delivery, service="example", exchange="jsonrpc")

    def encode_call() -> object:
        return encoder.publish(1, describe_call())

    def describe_reply() -> Any:
        return reply_message(delivery, response, route=route, now=now, deadline=now + 30)

    def encode_reply() -> object:
        return encoder.publish(1, describe_reply())

    reply = describe_reply()
    reply_frames = _delivered(encoder.publish(1, reply), reply.exchange, reply.routing_key)
    assert messages.result_of(response, 17) == 7

    crowd = Pending()
    for call in waiting_calls(0, _OTHERS):
        crowd.add(call)
    return {
        YARDSTICK: _yardstick,
        "write a request": lambda: messages.request("add", [3, 4], 17),
        "describe and encode the request": encode_call,
        "decode the request": lambda: decoder.feed(request_frames),
        "dispatch the request": lambda: dispatcher(request),
        "dispatch it, with type hints": lambda: hinted(request),
        "dispatch it, with a middleware": lambda: wrapped(request),
        "dispatch an object of 20 fields": lambda: large(large_request),
        "read and convert it by msgspec alone": lambda: msgspec.convert(_decode(large_request)["params"][0], _Record),
        "find the reply route": find_route,
        "describe and encode the reply": encode_reply,
        "decode the reply": lambda: decoder.feed(reply_frames),
        "read the reply": lambda: messages.result_of(response, 17),
        "encode any publish": lambda: b"".join(encoder.pieces(1, described)),
        "await the reply: add, pop": add_and_pop(Pending()),
        f"the same among {_OTHERS:,}": add_and_pop(crowd),
    }


_encode, _decode = msgspec.json.encode, msgspec.json.decode
_Record = make_dataclass("_Record", [(f"field{number}", int if number % 2 else str) for number in range(20)])


def _add(a: int, b: int) -> int:
    return a + b


def _keep(record: _Record) -> None:  # type: ignore[valid-type]  # a class that is made at run time
    """Take an object, and do nothing."""


def _pass_on(request: object, call_next: Callable[[Any], object]) -> object:
    return call_next(request)


def _yardstick() -> object:
    # The operations that a call consists of: small objects, calls, dictionaries, text, JSON. Changing it would make all
    # baselines meaningless.
    made: dict[str, object] = {}
    for i in range(20):
        made[f"key{i}"] = (i, str(i), [i])
    return _decode(_encode(made))


_method = Struct(">BHIHH").pack


def _delivered(publish: bytes, exchange: str, key: str) -> bytes:
    """Return the frames of a publish as a consumer gets them, with ``basic.deliver`` instead of ``basic.publish``."""
    size = int.from_bytes(publish[3:7], "big")
    arguments = b"".join(
        (_short("tag"), (1).to_bytes(8, "big"), b"\0", _short(exchange), _short(key)),
    )
    return _method(1, 1, 4 + len(arguments), 60, 60) + arguments + b"\xce" + publish[size + 8 :]


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


# -- how ------------------------------------------------------------------------------------------------------


def seconds(of: Mapping[str, Step]) -> dict[str, float]:
    """Return the least seconds of each step."""
    spare = _spare_memory()
    counts = {name: _count_for(step) for name, step in of.items()}
    best = dict.fromkeys(of, float("inf"))
    gc.disable()
    for _ in range(_SLICES):
        for name, step in of.items():
            best[name] = min(best[name], _run(step, counts[name]) / counts[name])
    gc.enable()
    del spare
    return best


def _spare_memory() -> list[bytes]:
    # Keep arenas of Python's allocator partly used. Otherwise a step may happen to be the one that needs another arena,
    # and maps and unmaps it at each run, which was seen to triple its time.
    return [bytes(64) for _ in range(50_000)][::1000]


def _count_for(step: Step) -> int:
    count = 1
    while (taken := _run(step, count)) < _SLICE / 4:
        count *= 2
    return max(1, round(count * _SLICE / taken))


def _run(step: Step, count: int) -> float:
    start = time.perf_counter()
    for _ in repeat(None, count):
        step()
    return time.perf_counter() - start


def instructions() -> dict[str, float]:
    """
    Return the number of instructions of each step.

    Raises:
        OSError: They cannot be counted here; the error says why.
    """
    if shutil.which("valgrind") is None:
        raise OSError("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/out"),
                f"--dump-before={_MARK.__name__}",
                *(sys.executable, "-m", "benchmarks.micro", "--traced"),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise OSError(f"valgrind failed: {done.stderr.strip().splitlines()[-1:]}")
        names = json.loads(done.stdout)
        # Each dump counts from the one before, so every second one is a step; the others are what precedes it.
        counts = [_counted(Path(folder, f"out.{2 * i + 2}")) for i in range(len(names))]
    return {name: count / _COUNTED for name, count in zip(names, counts, strict=True)}


# A function of the C library that nothing else here calls.
_MARK = os.getppid


def traced() -> None:
    """Run each step between two marks. Runs under valgrind."""
    measured = steps()
    gc.collect()
    gc.disable()
    for step in measured.values():
        _run(step, _WARM_UP)
        _MARK()
        _run(step, _COUNTED)
        _MARK()
    print(json.dumps(list(measured)))


def _counted(dump: Path) -> int:
    [line] = [line for line in dump.read_text().splitlines() if line.startswith("summary:")]
    return int(line.split()[1])


# -- against the baseline -------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """Time or instructions."""

    name: str
    unit: str
    factor: float
    tolerance: float
    figures: dict[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        """The figures as multiples of the yardstick."""
        return {name: value / self.figures[YARDSTICK] for name, value in self.figures.items()}


def worse(kind: Kind, baseline: Mapping[str, float]) -> Iterable[str]:
    """Yield a line for each step that is worse than the baseline by more than the tolerance, or has no baseline."""
    for name, ratio in kind.ratios.items():
        if name not in baseline:
            yield f"{name}: {kind.name} has no baseline"
        elif ratio > baseline[name] * (1 + kind.tolerance):
            more = ratio / baseline[name] - 1
            yield f"{name}: {more:+.0%} {kind.name}, where {kind.tolerance:+.0%} is tolerated"


def show(kind: Kind, baseline: Mapping[str, float]) -> None:
    """Print one table."""
    print(f"\n{kind.name + ', ' + kind.unit:36}{'':>10}{'of yardstick':>14}{'baseline':>10}{'':>8}")
    for name, ratio in kind.ratios.items():
        before = baseline.get(name)
        change = "" if before is None else f"{before:>10.3f}{ratio / before - 1:>+8.0%}"
        print(f"{name:36}{kind.figures[name] * kind.factor:>10,.2f}{ratio:>14.3f}{change}")


def main() -> int:
    """Run the command, and return its exit status: 1 if a step is worse, 2 if there is no baseline."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description="In-process costs.")
    parser.add_argument("--check", action="store_true", help="fail if a step is worse than the baseline")
    parser.add_argument("--write", action="store_true", help="write a new baseline")
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.traced:
        traced()
        return 0
    kinds = [Kind("time", "µs", 1e6, TIME_TOLERANCE, seconds(steps()))]
    try:
        kinds.append(Kind("instructions", "thousands", 1e-3, INSTRUCTION_TOLERANCE, instructions()))
    except OSError as exc:
        print(f"Instructions are not counted: {exc}")
    version = ".".join(platform.python_version_tuple()[:2])
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    baseline = known.get(version, {})
    for kind in kinds:
        show(kind, baseline.get(kind.name, {}))
    if options.write:
        ratios = {kind.name: {name: round(ratio, 4) for name, ratio in kind.ratios.items()} for kind in kinds}
        known[version] = {**baseline, "python": sys.version, **ratios}
        BASELINE.write_text(json.dumps(known, indent=2) + "\n")
        print(f"\nwrote {BASELINE}")
        return 0
    return _verdict(kinds, baseline, version) if options.check else 0


def _verdict(kinds: list[Kind], baseline: Mapping[str, Any], version: str) -> int:
    if not baseline:
        print(f"\nThere is no baseline for Python {version}: make one with `python -m benchmarks.micro --write`.")
        return 2
    if baseline["python"] != sys.version:
        print(f"\nThe baseline was made with another build, whose figures may differ: {baseline['python']}")
    found = [line for kind in kinds for line in worse(kind, baseline.get(kind.name, {}))]
    print("", *(found or ["No step is worse than the baseline by more than the tolerance."]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
