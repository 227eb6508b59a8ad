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
from .ends import DEADLINE, AnyClient, Service, make_clients, nap, new_clients, queues, stats_of, targets
from .tally import Case
from .traffic import SLACK, Traffic


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
    served.servers(node.url, service, queue_type=queue_type).start().stop()
    node.settle()
    servers, called = served.servers(node.url, service, queue_type=queue_type), targets(service)
    with census(node, durable=queues(service)), servers, make_clients(node.url, service) as clients:
        with Traffic(clients, called, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                in_flight = nap(clients, called, 1)
                assert all(served.begun.acquire(timeout=30) for _ in in_flight)
                node.kill()
                opening = _Opening(node.port)
                assert all(isinstance(each.exception(1), ConnectionLost) for each in in_flight)
                node.restart()
                opening.join()
                case.bit("calls in flight lost", len(in_flight))
                case.within("calls again", traffic.first_result_after(opening.moment), bound=3, slack=1)
                case.within("notifications again", traffic.first_confirm_after(opening.moment), bound=3, slack=1)
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)
        case.bit("typed errors", traffic.errors.total(), least=case.repeats)
        assert stats_of(clients, "pending") == 0


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
    served.servers(node.url, service).start().stop()
    with (
        census(node, durable=queues(service)),
        served.servers(node.url, service),
        make_clients(node.url, service) as clients,
    ):
        with Traffic(clients, targets(service), threads=8, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                closing = [client.start() for client in new_clients(node.url, service)]
                before = traffic.errors.total()
                with _frozen(node):
                    frozen = time.monotonic()
                    waiting = [client.submit("double", [1], timeout=60) for client in closing]
                    time.sleep(1)
                    for client in closing:
                        began = time.monotonic()
                        client.close()
                        case.within("close() of a client", time.monotonic() - began, bound=1, slack=0.3)
                    assert all(each.exception(0) is not None for each in waiting)
                    time.sleep(max(0.0, frozen + (15 if FULL else DEADLINE + 1.5) - time.monotonic()))
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
    served.servers(node.url, service).start().stop()
    with (
        census(node, durable=queues(service)),
        served.servers(node.url, service),
        make_clients(node.url, service) as clients,
    ):
        with Traffic(clients, targets(service), deadline=DEADLINE) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                before = traffic.errors["Blocked"]
                node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
                # The broker sends connection.blocked at a connection's next publish; those calls time out.
                began = time.monotonic()
                for client in clients:
                    wait_for(lambda client=client: _error_of(client, 0.1) is not None)  # type: ignore[misc]
                    wait_for(lambda client=client: isinstance(_error_of(client, 0.2), Blocked))  # type: ignore[misc]
                case.within("first Blocked", time.monotonic() - began, bound=DEADLINE, slack=SLACK)
                if FULL:  # the traffic as well, not only the calls of this test
                    traffic.wait_for_error("Blocked", before, 2 * DEADLINE + 2)
                    case.bit("calls that ended as Blocked", traffic.errors["Blocked"] - before)
                parked = [client.submit("double", [4], timeout=30) for client in clients]
                time.sleep(0.2)
                case.bit("parked calls", sum(not each.done() for each in parked), least=len(parked))
                node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
                assert [each.result(10) for each in parked] == [8] * len(parked)
        case.account(traffic)
        assert stats_of(clients, "connections") == len(clients)


def _error_of(client: AnyClient, timeout: float) -> BaseException | None:
    return client.submit("double", [1], timeout=timeout).exception(2)
