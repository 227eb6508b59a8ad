"""Processes end, fork or freeze while calls are in flight."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import ClientClosed

from ..broker import Broker
from ..tools import wait_for
from .census import census
from .ends import Service, make_clients, nap, new_clients, queues, stats_of, targets
from .tally import Case
from .traffic import Traffic

ROOT = Path(__file__).parents[2]

FORKED = """
import os, sys, warnings
from jsonrpc_amqp import Client, ClientClosed
warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads, which is intended here

url, *services = sys.argv[1:]
client = Client(url, services[0], timeout=5, heartbeat=2).start()
in_flight = [client.submit("nap", [0.5, "parent"], service=service) for service in services]
child = os.fork()
if child == 0:
    status = 1
    try:
        client.call("double", [1])
    except ClientClosed:
        client.close()
        with Client(url, services[0], timeout=5, heartbeat=2) as own:
            doubled = [own.call("double", [2], service=service) for service in services]
            status = 0 if set(doubled) == {4} else 2
    os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert {each.result() for each in in_flight} == {"parent"}
assert client.call("double", [3]) == 6
client.close()
"""

FORKED_ON_LOOP = """
import asyncio, os, sys, threading, warnings
from jsonrpc_amqp import AsyncClient, ClientClosed
warnings.simplefilter("ignore", DeprecationWarning)

url, *services = sys.argv[1:]
doubled = []

async def use_own():
    async with AsyncClient(url, services[0], timeout=5, heartbeat=2) as own:
        doubled.extend([await own.call("double", [2], service=service) for service in services])

async def main():
    client = await AsyncClient(url, services[0], timeout=5, heartbeat=2).start()
    in_flight = [client.submit("nap", [0.5, "parent"], service=service) for service in services]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            client.submit("double", [1])
        except ClientClosed:
            # In the child, too, a loop runs on this thread.
            thread = threading.Thread(target=lambda: asyncio.run(use_own()))
            thread.start()
            thread.join()
            status = 0 if doubled == [4] * len(services) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == 0
    assert {await each for each in in_flight} == {"parent"}
    assert await client.call("double", [3]) == 6
    await client.aclose()

asyncio.run(main())
"""

EXITING = """
import sys, threading
from jsonrpc_amqp import Client

url, *services = sys.argv[1:]
client = Client(url, services[0], timeout=30, heartbeat=2).start()
in_flight = [client.submit("nap", [0.5], service=service) for _ in range(3) for service in services]
threading.Thread(target=client.call, args=("nap", [0.5]), daemon=True).start()
assert client.call("double", [3]) == 6
"""

EXITING_ON_LOOP = """
import asyncio, sys
from jsonrpc_amqp import AsyncClient

url, *services = sys.argv[1:]

async def main():
    global client, in_flight, task
    client = await AsyncClient(url, services[0], timeout=30, heartbeat=2).start()
    in_flight = [client.submit("nap", [0.5], service=service) for _ in range(3) for service in services]
    task = asyncio.create_task(client.call("nap", [0.5]))
    assert await client.call("double", [3]) == 6

asyncio.run(main())
"""

PACED = """
import sys, time
from jsonrpc_amqp import Client

url, *services = sys.argv[1:]
with Client(url, services[0], timeout=5, heartbeat=1) as client:
    for number in range(10**6):
        try:
            service = services[number % len(services)]
            print(client.call("double", [number], service=service) - 2 * number, flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        time.sleep(0.1)
"""

PACED_ON_LOOP = """
import asyncio, sys
from jsonrpc_amqp import AsyncClient

async def main():
    url, *services = sys.argv[1:]
    async with AsyncClient(url, services[0], timeout=5, heartbeat=1) as client:
        for number in range(10**6):
            try:
                service = services[number % len(services)]
                print(await client.call("double", [number], service=service) - 2 * number, flush=True)
            except Exception as error:
                print(type(error).__name__, error, flush=True)
            await asyncio.sleep(0.1)

asyncio.run(main())
"""


def command(program: str, url: str, service: str) -> list[str]:
    # By default Python shows no ResourceWarning, of a client that was not closed either.
    options = ["-W", "error", "-W", "ignore::ResourceWarning"]
    return [sys.executable, *options, "-c", program, url, *(target.service for target in targets(service))]


def run(program: str, url: str, service: str) -> float:
    """Run a program and return how many seconds it took. It must exit with 0 and print nothing."""
    began = time.monotonic()
    done = subprocess.run(
        command(program, url, service), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return time.monotonic() - began


@pytest.mark.fault(
    "closed",
    fault="client closed with calls in flight",
    bound="each call ends as ClientClosed, which says that the method may have run; close() takes 1 s; "
    "nothing is left over",
    mechanism="all pending calls fail together before the connection is closed",
    full=20,
    short=2,
    seconds=5,
)
@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_client_is_closed(case: Case, broker: Broker, service: str, reply: Any) -> None:
    served, called = Service(), targets(service)
    with served.servers(broker.url, service), census(broker), make_clients(broker.url, service) as others:
        with Traffic(others, called) as traffic:
            for _ in case.rounds():
                clients = [client.start() for client in new_clients(broker.url, service, reply=reply)]
                in_flight = list(itertools.product(clients, called))
                ends = nap(clients, called, 2)
                assert all(served.begun.acquire(timeout=30) for _ in in_flight)
                for client in clients:
                    began = time.monotonic()
                    client.close()
                    case.within("close()", time.monotonic() - began, bound=1, slack=0.3)
                errors = [each.exception(0) for each in ends]
                assert all(isinstance(error, ClientClosed) and error.may_have_run for error in errors)
                case.bit("calls in flight ended", len(errors))
                for client, target in in_flight:
                    case.ended(client, target, "errors", error="ClientClosed")
                assert stats_of(clients, "pending") == 0
        case.account(traffic)
        assert traffic.errors.total() == 0


@pytest.mark.fault(
    "forked",
    fault="process forked with a call in flight",
    bound="the parent's calls continue; in the child each use of the parent's client raises ClientClosed, a "
    "client of its own works",
    mechanism="a client belongs to the process that first used it",
    full=20,
    short=2,
    seconds=5,
)
def test_process_is_forked(case: Case, broker: Broker, service: str) -> None:
    served = Service()
    with served.servers(broker.url, service) as servers, census(broker):
        for number in case.rounds():
            kind, program = [("Client", FORKED), ("AsyncClient", FORKED_ON_LOOP)][number % 2]
            before = {name: server.stats()["answered"] for name, server in servers.of.items()}
            case.within("whole round", run(program, broker.url, service), bound=5, slack=5)
            for name, server in servers.of.items():
                answered = server.stats()["answered"] - before[name]
                case.bit("replies to parent and child", answered, least=2)
                for _ in range(answered):
                    case.ended(kind, name, "results")


@pytest.mark.fault(
    "client-freeze",
    fault="process of a client frozen (SIGSTOP) between two calls, for two to four heartbeats",
    bound="the next call succeeds, over a new connection if the broker has closed the old one",
    mechanism="nothing is sent on a connection that was silent for two heartbeats, unless bytes of the broker wait "
    "to be read",
    full=10,
    short=2,
    seconds=10,
)
def test_client_freezes(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    served = Service()
    programs = {"Client": PACED, "AsyncClient": PACED_ON_LOOP}
    outputs = {kind: tmp_path / kind for kind in programs}
    with served.servers(broker.url, service), census(broker), ExitStack() as files:
        processes = {
            kind: subprocess.Popen(
                command(program, broker.url, service),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=files.enter_context(outputs[kind].open("wb")),
                stderr=subprocess.DEVNULL,
            )
            for kind, program in programs.items()
        }
        for number in case.rounds():
            for kind, process in processes.items():
                wait_for(partial(_has_results, outputs[kind], _results(outputs[kind]) + 5))
                process.send_signal(signal.SIGSTOP)  # in its sleep
            # Every other time so short that the broker has not yet closed the connection.
            time.sleep(4 if number % 2 else random.uniform(2.05, 2.5))
            before = {kind: _results(output) for kind, output in outputs.items()}
            for process in processes.values():
                process.send_signal(signal.SIGCONT)
            thawed = time.monotonic()
            for kind, output in outputs.items():
                wait_for(partial(_has_results, output, before[kind] + 1))
                case.within("calls again", time.monotonic() - thawed, bound=3, slack=1)
                case.bit("processes frozen", 1)
        for process in processes.values():
            process.terminate()
            process.wait(5)
    for kind, output in outputs.items():
        lines = output.read_text().splitlines()
        # A process that was frozen with a call in flight has lost the reply with the connection.
        assert [each for each in lines if each != "0" and not each.startswith("ConnectionLost")] == []
        assert sum(each.startswith("ConnectionLost") for each in lines) <= case.repeats // 2
        for number in range(_results(output)):
            case.ended(kind, targets(service)[number % len(targets(service))], "results")


def _results(output: Path) -> int:
    return output.read_text().splitlines().count("0")


def _has_results(output: Path, count: int) -> bool:
    return _results(output) >= count


NAPPING = """
import asyncio, sys, time
from jsonrpc_amqp import Server, current_request
from tests.loop_server import LoopServer

def nap(seconds):
    print("begun", flush=True)
    # In steps: a single time.sleep(1) would end as soon as the process resumes.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return current_request().redelivered

async def nap_on_loop(seconds):
    print("begun", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.005)
    return current_request().redelivered

url, *services = sys.argv[1:]
kinds = [(Server, nap), (Server, nap_on_loop), (LoopServer, nap_on_loop)]
first, second, third = [
    kind(url, service, heartbeat=1, methods={"nap": method})
    for service, (kind, method) in zip(services, kinds, strict=True)
]
with second, third:
    first.serve_forever()
"""


@pytest.mark.fault(
    "server-freeze",
    fault="process of a server frozen (SIGSTOP) in the middle of its handlers, for two to four heartbeats",
    bound="each call has its result; no request is acknowledged without its reply",
    mechanism="as above; a connection that is abandoned is so for replies and acknowledgements alike",
    full=10,
    short=2,
    seconds=15,
)
def test_server_freezes(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    redelivered, output, called = 0, tmp_path / "output", targets(service)
    with census(broker, durable=queues(service)), make_clients(broker.url, service, timeout=20) as clients:
        with output.open("wb") as file:
            process = subprocess.Popen(
                command(NAPPING, broker.url, service),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
            )
        for number in case.rounds():
            for each in nap(clients, called, 0, retry="safe"):
                each.result(20)
            begun = output.read_text().count("begun")
            naps = nap(clients, called, 1)
            wait_for(partial(_has_said, output, "begun", begun + len(naps)))
            process.send_signal(signal.SIGSTOP)
            time.sleep(4 if number % 2 else random.uniform(2.05, 2.4))
            process.send_signal(signal.SIGCONT)
            thawed = time.monotonic()
            redelivered += sum(each.result(20) for each in naps)
            case.within("all results", time.monotonic() - thawed, bound=10, slack=1)
            for client in clients:
                for target in called:
                    case.ended(client, target, "results")
        process.terminate()
        process.wait(10)
        assert stats_of(clients, "timeouts") == 0
    case.bit("requests redelivered", redelivered)


def _has_said(output: Path, text: str, times: int) -> bool:
    return output.read_text().count(text) >= times


@pytest.mark.fault(
    "exit",
    fault="interpreter ends with calls in flight",
    bound="it ends at once, without output (but a `ResourceWarning`, where those are shown); "
    "no queue and no connection is left",
    mechanism="I/O threads are daemons; the reply queue is exclusive",
    full=20,
    short=2,
    seconds=5,
)
def test_interpreter_ends(case: Case, broker: Broker, service: str) -> None:
    served = Service()
    with served.servers(broker.url, service) as servers, census(broker):
        for number in case.rounds():
            before = servers.stats()["received"]
            program = EXITING_ON_LOOP if number % 2 else EXITING
            case.within("whole process", run(program, broker.url, service), bound=3, slack=2)
            case.bit("calls in flight", servers.stats()["received"] - before, least=5)
            case.ended("AsyncClient" if number % 2 else "Client", "def", "results")
