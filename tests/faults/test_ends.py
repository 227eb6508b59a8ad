"""Processes end, fork or freeze while calls are in flight."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import ClientClosed

from ..broker import Broker
from ..tools import wait_for
from .census import census
from .tally import Case
from .traffic import Service, Traffic, make_client

ROOT = Path(__file__).parents[2]

FORKED = """
import os, sys, warnings
from jsonrpc_amqp import Client, ClientClosed
warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads, which is intended here

url, service = sys.argv[1:]
client = Client(url, service, timeout=5, heartbeat=2).start()
in_flight = client.submit("nap", [0.5, "parent"])
child = os.fork()
if child == 0:
    status = 1
    try:
        client.call("double", [1])
    except ClientClosed:
        client.close()
        with Client(url, service, timeout=5, heartbeat=2) as own:
            status = 0 if own.call("double", [2]) == 4 else 2
    os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert in_flight.result() == "parent"
assert client.call("double", [3]) == 6
client.close()
"""

EXITING = """
import sys, threading
from jsonrpc_amqp import Client

url, service = sys.argv[1:]
client = Client(url, service, timeout=30, heartbeat=2).start()
in_flight = [client.submit("nap", [0.5]) for _ in range(5)]
threading.Thread(target=client.call, args=("nap", [0.5]), daemon=True).start()
assert client.call("double", [3]) == 6
"""


PACED = """
import sys, time
from jsonrpc_amqp import Client

url, service = sys.argv[1:]
with Client(url, service, timeout=5, heartbeat=1) as client:
    for number in range(10**6):
        try:
            print(client.call("double", [number]) - 2 * number, flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        time.sleep(0.1)
"""


def run(program: str, url: str, service: str) -> float:
    """Run a program and return how many seconds it took. It must exit with 0 and print nothing."""
    began = time.monotonic()
    # By default Python shows no ResourceWarning, of a client that was not closed either.
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", program, url, service]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
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
    served = Service()
    with served.server(broker.url, service), census(broker), make_client(broker.url, service) as other:
        with Traffic([other]) as traffic:
            for _ in case.rounds():
                client = make_client(broker.url, service, reply=reply).start()
                in_flight = [client.submit("nap", [0.2]) for _ in range(5)]
                assert served.begun.acquire(timeout=5)
                began = time.monotonic()
                client.close()
                case.within("close()", time.monotonic() - began, bound=1, slack=0.3)
                errors = [each.exception(0) for each in in_flight]
                assert all(isinstance(error, ClientClosed) and error.may_have_run for error in errors)
                case.bit("calls in flight ended", len(errors))
                case.record.errors["ClientClosed"] = case.record.errors.get("ClientClosed", 0) + len(errors)
                assert client.stats()["pending"] == 0
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
    with served.server(broker.url, service) as server, census(broker):
        for _ in case.rounds():
            before = server.stats()["answered"]
            case.within("whole round", run(FORKED, broker.url, service), bound=5, slack=5)
            case.bit("replies to parent and child", server.stats()["answered"] - before, least=3)


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
    served, output = Service(), tmp_path / "output"
    command = [sys.executable, "-W", "error", "-c", PACED, broker.url, service]
    with served.server(broker.url, service) as server, census(broker), output.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL)
        for number in case.rounds():
            received = server.stats()["received"]
            wait_for(lambda received=received: server.stats()["received"] >= received + 5)  # type: ignore[misc]
            size = output.stat().st_size
            wait_for(lambda size=size: output.stat().st_size > size)  # type: ignore[misc]
            process.send_signal(signal.SIGSTOP)  # in its sleep
            # Every other time so short that the broker has not yet closed the connection.
            time.sleep(4 if number % 2 else random.uniform(2.05, 2.5))
            process.send_signal(signal.SIGCONT)
            thawed, received = time.monotonic(), server.stats()["received"]
            wait_for(lambda received=received: server.stats()["received"] > received)  # type: ignore[misc]
            case.within("calls again", time.monotonic() - thawed, bound=3, slack=1)
            case.bit("processes frozen", 1)
        process.terminate()
        process.wait(5)
    lines = output.read_text().splitlines()
    # A process that was frozen with a call in flight has lost the reply with the connection.
    assert [each for each in lines if each != "0" and not each.startswith("ConnectionLost")] == []
    assert sum(each.startswith("ConnectionLost") for each in lines) <= case.repeats // 2
    case.record.results += len(lines)


NAPPING = """
import sys, time
from jsonrpc_amqp import Server, current_request

url, service = sys.argv[1:]
server = Server(url, service, heartbeat=1)

@server.method
def nap(seconds):
    print("begun", flush=True)
    # In steps: a single time.sleep(1) would end as soon as the process resumes.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return current_request().redelivered

server.serve_forever()
"""


@pytest.mark.fault(
    "server-freeze",
    fault="process of a server frozen (SIGSTOP) in the middle of four handlers, for two to four heartbeats",
    bound="each call has its result; no request is acknowledged without its reply",
    mechanism="as above; a connection that is abandoned is so for replies and acknowledgements alike",
    full=10,
    short=2,
    seconds=15,
)
def test_server_freezes(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    redelivered, output = 0, tmp_path / "output"
    command = [sys.executable, "-W", "error", "-c", NAPPING, broker.url, service]
    with census(broker, durable={f"{service}_req"}), make_client(broker.url, service, timeout=20) as client:
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL
            )
        for number in case.rounds():
            client.call("nap", [0], retry="safe")
            begun = output.read_text().count("begun")
            naps = [client.submit("nap", [1]) for _ in range(4)]
            wait_for(partial(_has_said, output, "begun", begun + 4))
            process.send_signal(signal.SIGSTOP)
            time.sleep(4 if number % 2 else random.uniform(2.05, 2.4))
            process.send_signal(signal.SIGCONT)
            thawed = time.monotonic()
            redelivered += sum(each.result(20) for each in naps)
            case.within("all four results", time.monotonic() - thawed, bound=10, slack=1)
            case.record.results += 4
        process.terminate()
        process.wait(10)
        assert client.stats()["timeouts"] == 0
    case.bit("requests redelivered", redelivered)


def _has_said(output: Path, text: str, times: int) -> bool:
    return output.read_text().count(text) >= times


@pytest.mark.fault(
    "exit",
    fault="interpreter ends with calls in flight",
    bound="it ends at once, without output; no queue and no connection is left",
    mechanism="I/O threads are daemons; the reply queue is exclusive",
    full=20,
    short=2,
    seconds=5,
)
def test_interpreter_ends(case: Case, broker: Broker, service: str) -> None:
    served = Service()
    with served.server(broker.url, service) as server, census(broker):
        for _ in case.rounds():
            before = server.stats()["received"]
            case.within("whole process", run(EXITING, broker.url, service), bound=3, slack=2)
            case.bit("calls in flight", server.stats()["received"] - before, least=5)
