"""
Random faults for a long time: ``python -m tests.faults.soak``, or ``tox -e soak``.

The environment variables are ``SOAK_MINUTES`` (20) and ``SOAK_SEED`` (random, and printed). The memory of the callers'
process and of the oldest server process must not grow; each call is accounted for, as in the cases.
"""

from __future__ import annotations

import itertools
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pika

from ..broker import Broker
from ..proxy import Proxy
from .census import census
from .ends import Service, make_clients, queues, stats_of, targets
from .fleet import Fleet
from .tally import Case, Record
from .traffic import Traffic

SERVICE = "soak"
WORKERS = 3
SAMPLE_SECONDS = 10.0
# The memory in the last quarter of the time, relative to the second quarter.
MOST_GROWTH, MOST_GROWTH_MIB = 1.10, 5.0


class Memory(threading.Thread):
    """Samples the resident memory of processes, in MiB, every ten seconds."""

    def __init__(self, pids: dict[str, int]) -> None:
        super().__init__(name="memory", daemon=True)
        self._pids = pids
        self._over = threading.Event()
        self.samples: dict[str, list[float]] = {name: [] for name in pids}

    def run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            for name, pid in self._pids.items():
                self.samples[name].append(_resident(pid))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def check(self) -> None:
        """Print the samples, and fail if a process has grown."""
        for name, samples in self.samples.items():
            quarter = max(1, len(samples) // 4)
            before = statistics.median(samples[quarter : 2 * quarter] or samples)
            after = statistics.median(samples[-quarter:])
            print(f"memory of the {name}, MiB: {' '.join(f'{each:.1f}' for each in samples[::6])}; {before} -> {after}")
            assert after <= max(before * MOST_GROWTH, before + MOST_GROWTH_MIB), f"the {name} grows"


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} is gone")


class Notes:
    """The notifications that servers recorded, read as the file grows."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "runs"
        self._read = 0
        self.numbers: set[int] = set()

    def wait_for(self, confirmed: set[int]) -> set[int]:
        """Wait until all of these were handled; return those that were not."""
        give_up = time.monotonic() + 30
        while (missing := confirmed - self.numbers) and time.monotonic() < give_up:
            time.sleep(0.05)
            self._read_on()
        self.numbers.clear()
        return missing

    def _read_on(self) -> None:
        with self._file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        self.numbers |= {int(line.split()[1]) for line in whole.splitlines() if line.startswith(b"note ")}


class Faults:
    """The kinds of faults. Each method injects one and repairs it."""

    def __init__(self, broker: Broker, fleet: Fleet, proxies: list[Proxy], chance: random.Random) -> None:
        self._broker = broker
        self._fleet = fleet
        self._proxies = proxies
        self._chance = chance
        self.kinds: list[Callable[[], None]] = [
            self.worker_killed,
            self.worker_frozen,
            self.broker_killed,
            self.broker_frozen,
            self.cut,
            self.delayed,
            self.dripped,
            self.half_open,
            self.alarm,
            self.exchange_deleted,
        ]

    def worker_killed(self) -> None:
        # Not the oldest process, whose memory is sampled.
        self._fleet.kill(self._chance.choice(list(self._fleet.processes)[1:]))
        self._fleet.start()

    def worker_frozen(self) -> None:
        pid = self._chance.choice(list(self._fleet.processes))
        self._fleet.freeze(pid)
        time.sleep(self._chance.uniform(1, 9))
        self._fleet.thaw(pid)

    def broker_killed(self) -> None:
        self._broker.kill()
        self._broker.restart()

    def broker_frozen(self) -> None:
        self._broker.freeze()
        time.sleep(self._chance.uniform(1, 8))
        self._broker.thaw()

    def cut(self) -> None:
        self._chance.choice(self._proxies).cut()

    def delayed(self) -> None:
        self._for_a_while(lambda proxy: proxy.delay(self._chance.uniform(0.05, 0.6)))

    def dripped(self) -> None:
        self._for_a_while(Proxy.drip)

    def half_open(self) -> None:
        self._for_a_while(Proxy.half_open)

    def alarm(self) -> None:
        self._broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        time.sleep(self._chance.uniform(1, 7))
        self._broker.ctl("set_vm_memory_high_watermark", "absolute", "1GB")

    def exchange_deleted(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._broker.url))
        connection.channel().exchange_delete("jsonrpc")
        connection.close()

    def _for_a_while(self, fault: Callable[[Proxy], None]) -> None:
        proxy = self._chance.choice(self._proxies)
        fault(proxy)
        time.sleep(self._chance.uniform(1, 7))
        proxy.heal()


def main(minutes: float, seed: int) -> None:
    print(f"seed {seed}, {minutes:g} minutes", flush=True)
    record = Record(
        "soak",
        f"random faults of all kinds for {minutes:g} minutes, seed {seed}",
        "no confirmed notification lost; each call ends by its deadline; memory of client and server is flat",
        "all of the above",
        "soak.py",
    )
    case = Case(record, 0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(Broker())
        Service().servers(broker.url, SERVICE).start().stop()
        broker.settle()
        stack.enter_context(census(broker, durable=queues(SERVICE)))
        proxies = [stack.enter_context(Proxy(broker.port)) for _ in range(2)]
        fleet = stack.enter_context(Fleet(proxies[0].url, SERVICE, folder))
        fleet.start(WORKERS)
        record.environment = f"RabbitMQ {broker.version}, Python {platform.python_version()}"
        _soak(case, minutes, random.Random(seed), broker, fleet, proxies, folder)
    print(record, flush=True)
    if tally := os.environ.get("FAULTS_TALLY"):
        record.write(Path(tally))


def _soak(
    case: Case,
    minutes: float,
    chance: random.Random,
    broker: Broker,
    fleet: Fleet,
    proxies: list[Proxy],
    folder: Path,
) -> None:
    faults, notes, numbers = Faults(broker, fleet, proxies, chance), Notes(folder), itertools.count()
    memory = Memory({"callers' process": os.getpid(), "oldest server process": next(iter(fleet.processes))})
    memory.start()
    called = targets(SERVICE)
    with (
        make_clients(proxies[1].url, SERVICE) as topic,
        make_clients(proxies[1].url, SERVICE, reply="direct") as direct,
        make_clients(proxies[1].url, SERVICE, confirm=True) as patient,
    ):
        over = time.monotonic() + 60 * minutes
        while time.monotonic() < over:
            fault = chance.choice(faults.kinds)
            print(f"{over - time.monotonic():5.0f} s to go: {fault.__name__}", flush=True)
            with (
                Traffic([*topic, *direct], called, threads=6, notify=True, pause=0.02, numbers=numbers) as traffic,
                Traffic(patient, called, threads=2, pause=0.02, numbers=numbers, retry="idempotent") as retrying,
            ):
                traffic.wait_for_flow()
                time.sleep(chance.uniform(0.5, 2))
                fault()
                traffic.first_result_after(time.monotonic())
                traffic.wait_for_flow()
            for each in (traffic, retrying):
                case.account(each)
            case.account_for_missing(traffic, notes.wait_for(set(traffic.confirmed)))
            case.bit(fault.__name__.replace("_", " "), 1)
            case.record.rounds += 1
        assert stats_of([*topic, *direct, *patient], "pending") == 0
    memory.stop()
    memory.check()


if __name__ == "__main__":
    main(
        float(os.environ.get("SOAK_MINUTES", "20")),
        int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6)),
    )
    sys.exit(0)
