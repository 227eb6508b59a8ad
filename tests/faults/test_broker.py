"""The broker is killed, freezes, or blocks publishers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jsonrpc_amqp import Blocked, ConnectionLost

from ..broker import Broker, answers
from ..tools import wait_for
from .census import census
from .conftest import FULL
from .tally import Case
from .traffic import DEADLINE, SLACK, Service, Traffic, make_client


@pytest.fixture(scope="module")
def node() -> Iterator[Broker]:
    """A node that tests may kill and freeze."""
    with Broker() as node:
        yield node


class _Opening(threading.Thread):
    """Records when a node accepts connections, which is a moment before it reports that it has started."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.moment = 0.0
        self.start()

    def run(self) -> None:
        while not answers(self._port):
            time.sleep(0.01)
        self.moment = time.monotonic()


@pytest.mark.fault(
    "broker-kill",
    fault="broker killed (SIGKILL) and restarted",
    bound="no confirmed notification lost; each call ends by its deadline; "
    "calls succeed again within 3 s of the port opening",
    mechanism="durable queue, persistent messages, confirms by delivery tag; reconnect with a back-off of at most 2 s",
    full=20,
    short=1,
    seconds=30,
)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_broker_is_killed_and_restarted(case: Case, node: Broker, service: str, queue_type: Any) -> None:
    served = Service()
    served.server(node.url, service, queue_type=queue_type).start().stop()
    node.settle()
    server = served.server(node.url, service, queue_type=queue_type)
    with census(node, durable={f"{service}_req"}), server, make_client(node.url, service) as client:
        with Traffic([client], notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                in_flight = client.submit("nap", [1])
                assert served.begun.acquire(timeout=30)
                node.kill()
                opening = _Opening(node.port)
                assert isinstance(in_flight.exception(1), ConnectionLost)
                node.restart()
                opening.join()
                case.bit("calls in flight lost", 1)
                case.within("calls again", traffic.first_result_after(opening.moment), bound=3, slack=1)
                case.within("notifications again", traffic.first_confirm_after(opening.moment), bound=3, slack=1)
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)
        case.bit("typed errors", traffic.errors.total(), least=case.repeats)
        assert client.stats()["pending"] == 0


@contextmanager
def _frozen(node: Broker) -> Any:
    node.freeze()
    try:
        yield
    finally:
        node.thaw()


@pytest.mark.fault(
    "broker-freeze",
    fault="broker frozen (SIGSTOP) for 15 s",
    bound="each call has its error within 0.5 s of its deadline; close() takes 1 s; "
    "calls succeed again within 3 s of its end",
    mechanism="the client's own monotonic deadline for every call; heartbeats; a limit on what close() waits for",
    full=5,
    short=1,
    seconds=40,
)
def test_broker_freezes(case: Case, node: Broker, service: str) -> None:
    served = Service()
    served.server(node.url, service).start().stop()
    with (
        census(node, durable={f"{service}_req"}),
        served.server(node.url, service),
        make_client(node.url, service) as client,
    ):
        with Traffic([client], threads=8, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                closing = make_client(node.url, service).start()
                before = traffic.errors.total()
                with _frozen(node):
                    frozen = time.monotonic()
                    waiting = closing.submit("double", [1], timeout=60)
                    time.sleep(1)
                    began = time.monotonic()
                    closing.close()
                    case.within("close() of a client", time.monotonic() - began, bound=1, slack=0.3)
                    assert waiting.exception(0) is not None
                    time.sleep(14 if FULL else DEADLINE + 0.5)
                    thawed = time.monotonic()
                case.bit("typed errors", traffic.errors.total() - before)
                first = min(each for each in traffic.failed_at if each > frozen)
                case.within("first error", first - frozen, bound=DEADLINE, slack=SLACK)
                case.within("calls again", traffic.first_result_after(thawed), bound=3, slack=1)
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)


@pytest.mark.fault(
    "alarm",
    fault="memory alarm on and off",
    bound="calls end by their deadline, as Blocked once the broker has sent connection.blocked; "
    "parked calls resume after it",
    mechanism="connection.blocked; calls are parked, not sent",
    full=5,
    short=1,
    seconds=40,
)
def test_memory_alarm(case: Case, node: Broker, service: str) -> None:
    served = Service()
    served.server(node.url, service).start().stop()
    with (
        census(node, durable={f"{service}_req"}),
        served.server(node.url, service),
        make_client(node.url, service) as client,
    ):
        with Traffic([client], deadline=DEADLINE) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                before = traffic.errors["Blocked"]
                node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
                # The broker sends connection.blocked at a connection's next publish; those calls time out.
                began = time.monotonic()
                wait_for(lambda: client.submit("double", [1], timeout=0.1).exception(2) is not None, 10)
                wait_for(lambda: isinstance(client.submit("double", [1], timeout=0.2).exception(2), Blocked))
                case.within("first Blocked", time.monotonic() - began, bound=DEADLINE, slack=SLACK)
                if FULL:  # the traffic as well, not only the calls of this test
                    traffic.wait_for_error("Blocked", before, 2 * DEADLINE + 2)
                    case.bit("calls that ended as Blocked", traffic.errors["Blocked"] - before)
                parked = client.submit("double", [4], timeout=30)
                time.sleep(0.2)
                case.bit("parked calls", int(not parked.done()))
                node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
                assert parked.result(10) == 8
        case.account(traffic)
        assert client.stats()["connections"] == 1
