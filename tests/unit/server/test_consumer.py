"""What a server does at each event of its connection, and when it drains."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import Plan, Publish, Returned
from jsonrpc_amqp.errors import ConnectionLost, MessageTooLarge, NotConnected, TransportError, Unroutable, WouldDeadlock
from jsonrpc_amqp.server.consumer import Consumer
from jsonrpc_amqp.server.counters import Counters
from jsonrpc_amqp.server.executor import Executor
from jsonrpc_amqp.server.job import Job
from jsonrpc_amqp.server.lifecycle import Lifecycle, State
from jsonrpc_amqp.server.loop_executor import LoopExecutor

from ...tools import wait_for
from .fakes import EXCHANGE, QUEUE, SERVICE, FakeSession, FakeTransport, delivery

PLAN = Plan(EXCHANGE, queue=QUEUE, bindings=("S.request.#",), prefetch=64)
REPLY = Publish("", "client", b"x" * 500)


class Bench:
    """A consumer whose requests call ``on_run`` and are acknowledged."""

    def __init__(self) -> None:
        self.session, self.transport = FakeSession(), FakeTransport()
        self.lifecycle, self.counters = Lifecycle(2), Counters()
        on_loop = LoopExecutor(SERVICE, 2, 2, self.lifecycle, self.counters)
        executor = Executor(SERVICE, 2, self.lifecycle, self._process, self.counters, on_loop)
        self.consumer = Consumer(SERVICE, PLAN, self.transport, self.lifecycle, executor, self.counters)
        self.jobs: list[Job] = []
        self.on_run: Callable[[], Any] = lambda: None

    def _process(self, job: Job, _now: float) -> None:
        self.jobs.append(job)
        self.on_run()
        job.settle()

    def open(self) -> None:
        self.consumer.on_open(self.session)

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.counters.snapshot().items() if count}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_starts_the_transport_and_runs_what_is_delivered(bench: Bench) -> None:
    assert bench.consumer.start()
    assert bench.transport.listener is bench.consumer
    bench.open()
    bench.lifecycle.check_started(0)
    before = time.monotonic()
    bench.consumer.on_deliveries(bench.session, [delivery(tag=1, timeout_ms=2000), delivery(tag=2)])
    wait_for(lambda: len(bench.jobs) == 2)
    deadlines = {job.delivery.tag: job.deadline for job in bench.jobs}
    assert deadlines[2] is None
    assert before + 2 <= (deadlines[1] or 0) <= time.monotonic() + 2
    assert bench.consumer.stop(5)
    assert bench.counts == {"received": 2}
    assert bench.transport.closed.is_set()


def test_a_redelivered_request_knows_how_often(bench: Bench) -> None:
    bench.consumer.start()
    bench.open()
    bench.consumer.on_deliveries(bench.session, [delivery(redeliveries=4), delivery(tag=2, redelivered=True)])
    wait_for(lambda: len(bench.jobs) == 2)
    assert {job.delivery.tag: job.redeliveries for job in bench.jobs} == {1: 4, 2: 0}
    bench.consumer.stop(5)


def test_stop_cancels_then_gives_back_then_closes(bench: Bench) -> None:
    bench.open()
    bench.consumer.on_deliveries(bench.session, [delivery(tag=1), delivery(tag=2, redelivered=True)])
    assert bench.consumer.stop(5)
    assert bench.session.calls == [("cancel",), ("requeue", 1), ("requeue", 2), ("flush",)]
    assert bench.transport.closed.is_set()
    assert bench.jobs == []


def test_stop_without_a_connection_only_closes(bench: Bench) -> None:
    bench.consumer.start()
    assert bench.consumer.stop(5)
    assert bench.transport.closed.is_set()
    assert bench.session.calls == []


def test_stop_once_more_waits_until_the_connection_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may be about to close it, and the process may end when this one returns."""
    bench.open()
    bench.lifecycle.stop()  # as far as the other thread is
    closed: list[float] = []
    monkeypatch.setattr(bench.transport, "close", closed.append)
    assert bench.consumer.stop(5)
    assert len(closed) == 1


def test_stop_once_more_returns_at_once(bench: Bench) -> None:
    bench.open()
    bench.consumer.stop(5)
    calls = list(bench.session.calls)
    assert bench.consumer.stop(5)
    assert bench.session.calls == calls


@pytest.mark.parametrize(
    ("grace", "lines"),
    [
        (5, ["draining 'S'; running handlers: 0", "drained 'S'"]),
        (
            0,
            [
                "draining 'S'; running handlers: 1",
                "1 handlers still run after 0 s; their requests go back to the queue",
            ],
        ),
    ],
)
def test_its_end_is_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture, grace: int, lines: list[str]) -> None:
    caplog.set_level(logging.INFO, "jsonrpc_amqp.server")
    may_end, begun = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        may_end.wait(10)

    bench.on_run = run
    bench.consumer.start()
    bench.open()
    caplog.clear()
    if not grace:
        bench.consumer.on_deliveries(bench.session, [delivery()])
        assert begun.wait(10)
    assert bench.consumer.stop(grace) is bool(grace)
    may_end.set()
    bench.consumer.stop(grace)
    assert [each.getMessage() for each in caplog.records] == lines


def test_the_end_of_a_server_that_gave_up_is_not_logged_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jsonrpc_amqp.server")
    bench.consumer.start()
    bench.consumer.on_failed(NotConnected("no"), None)
    assert bench.consumer.stop(5)
    assert [each.getMessage() for each in caplog.records] == ["no"]


def test_a_server_that_was_stopped_does_not_start(bench: Bench) -> None:
    bench.consumer.stop(0)
    assert not bench.consumer.start()
    assert bench.transport.listener is None


def test_stop_by_a_handler_is_an_error(bench: Bench) -> None:
    errors: list[str] = []

    def stop() -> None:
        try:
            bench.consumer.stop(5)
        except RuntimeError as error:
            errors.append(str(error))

    bench.on_run = stop
    bench.consumer.start()
    bench.open()
    bench.consumer.on_deliveries(bench.session, [delivery()])
    wait_for(lambda: errors)
    assert "would wait for that handler" in errors[0]
    assert bench.consumer.stop(5)


def test_a_forked_child_neither_starts_nor_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.consumer.start()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="forked"):
            bench.consumer.start()
        assert bench.consumer.stop(5)
    assert bench.lifecycle.state is State.RUNNING
    bench.consumer.stop(5)


def test_a_server_that_drains_does_not_consume_over_a_new_connection(bench: Bench) -> None:
    assert bench.consumer.plan() == PLAN
    bench.lifecycle.drain()
    plan = bench.consumer.plan()
    assert (plan.queue, plan.bindings, plan.exchange) == (None, (), EXCHANGE)


def test_topology_is_redeclared_each_second_while_connected(bench: Bench) -> None:
    assert bench.consumer.on_tick(0) is None
    bench.open()
    due = bench.consumer.on_tick(time.monotonic())
    assert due is not None
    assert bench.session.calls == []
    assert bench.consumer.on_tick(due) == due + 1
    assert bench.session.calls == [("redeclare",)]
    bench.lifecycle.drain()
    assert bench.consumer.on_tick(due + 10) is None
    assert bench.session.calls == [("redeclare",)]


def test_a_lost_connection_is_logged_unless_the_server_has_stopped(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.open()
    bench.consumer.on_lost(bench.session, ConnectionLost("the cable is out"))
    assert bench.lifecycle.session is None
    assert "the cable is out; what was not acknowledged is delivered again" in caplog.text
    caplog.clear()
    bench.consumer.stop(0)
    bench.consumer.on_lost(bench.session, ConnectionLost("closed"))
    assert caplog.text == ""


@pytest.mark.parametrize(("retry_in", "text"), [(1.25, "no route; next attempt in 1.2 s"), (None, "no route")])
def test_a_failed_attempt_is_logged_and_raised(
    bench: Bench, retry_in: float | None, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.consumer.on_failed(NotConnected("no route"), retry_in)
    assert [record.message for record in caplog.records] == [text]
    with pytest.raises(NotConnected, match="no route"):
        bench.lifecycle.check_started(0)


def test_a_request_that_cannot_be_decoded_is_acknowledged_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.open()
    bench.consumer.on_undecoded(bench.session, delivery(tag=3), "its headers are too large")
    assert bench.session.calls == [("ack", 3)]
    assert bench.counts == {"received": 1, "malformed": 1}
    assert "cannot be read ('S.request" in caplog.text
    assert "its headers are too large" in caplog.text
    assert bench.jobs == []


def test_a_returned_reply_is_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.consumer.on_returned(bench.session, Returned(312, "NO_ROUTE", "", "client", None, None))
    assert bench.counts == {"dropped_replies": 1}
    assert "no client awaits the reply" in caplog.text


@pytest.mark.parametrize(
    ("error", "bodies", "counts"),
    [
        (MessageTooLarge("too large"), 1, {}),
        (Unroutable("no exchange"), 0, {"dropped_replies": 1}),
    ],
)
def test_a_rejected_reply_is_replaced_by_an_error_or_dropped(
    bench: Bench, error: TransportError, bodies: int, counts: dict[str, int]
) -> None:
    bench.consumer.on_rejected(bench.session, error, REPLY)
    assert bench.counts == counts
    assert [message.routing_key for message in bench.session.published] == ["client"] * bodies
    assert all(b"the answer has 500 bytes, too many for the broker" in each.body for each in bench.session.published)


def test_an_error_that_is_too_large_as_well_is_dropped(bench: Bench) -> None:
    bench.consumer.on_rejected(bench.session, MessageTooLarge("too large"), Publish("", "client", b"x" * 50))
    assert bench.counts == {"dropped_replies": 1}
    assert bench.session.published == []


def test_all_replies_are_sent_again_when_a_channel_was_closed(bench: Bench) -> None:
    assert bench.consumer.awaits(REPLY)


def test_congestion_is_logged_when_it_begins(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.consumer.on_congested(bench.session, True)
    bench.consumer.on_congested(bench.session, False)
    assert [record.message for record in caplog.records] == ["the broker takes no replies for now; they wait"]


def test_it_reports_once_that_it_serves_before_a_request_begins(bench: Bench) -> None:
    reported: list[int] = []
    bench.consumer.on_serving = lambda: reported.append(len(bench.jobs))
    bench.consumer.start()
    assert reported == []
    bench.open()
    assert reported == [0]
    bench.consumer.on_lost(bench.session, ConnectionLost("gone"))
    bench.open()
    assert reported == [0]
    bench.consumer.stop(5)


def test_a_report_that_fails_is_logged_and_requests_are_served(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.consumer.on_serving = lambda: 1 / 0
    bench.consumer.start()
    bench.open()
    bench.consumer.on_deliveries(bench.session, [delivery()])
    wait_for(lambda: bench.jobs)
    assert "on_serving failed; requests are served" in caplog.text
    bench.consumer.stop(5)


def test_a_server_that_drains_does_not_report_that_it_serves(bench: Bench) -> None:
    reported: list[int] = []
    bench.consumer.on_serving = lambda: reported.append(1)
    bench.consumer.start()
    bench.lifecycle.drain()
    bench.open()
    assert reported == []
    bench.consumer.stop(5)


def test_a_log_handler_that_fails_leaves_no_server_half_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError("a bug of this handler")

    bench.consumer.start()
    bench.open()
    monkeypatch.setattr(logging.getLogger("jsonrpc_amqp.server"), "handlers", [Raises()])
    monkeypatch.setattr(logging.getLogger("jsonrpc_amqp.server"), "level", logging.INFO)
    assert bench.consumer.stop(5)
    assert bench.transport.closed.is_set()


# -- who may wait, and who is gone ----------------------------------------------------------------------------------


def test_a_thread_that_the_connection_needs_neither_starts_nor_stops_a_server(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.transport, "would_deadlock", lambda: True)
    for wait in (bench.consumer.check_may_start, lambda: bench.consumer.stop(5)):
        with pytest.raises(WouldDeadlock, match="have another thread call it"):
            wait()
    monkeypatch.undo()
    bench.consumer.start()
    assert bench.consumer.stop(5)


def test_a_server_that_is_dropped_and_never_served_stops(bench: Bench) -> None:
    bench.consumer.start()
    assert bench.consumer.is_open
    bench.consumer.abandon()
    assert bench.lifecycle.state is State.RUNNING  # a finalizer may run anywhere: all else is for the leader
    bench.consumer.on_tick(0)
    assert bench.transport.closed.is_set()
    assert not bench.consumer.is_open


def test_a_server_that_is_dropped_while_it_serves_goes_on(bench: Bench) -> None:
    bench.consumer.start()
    bench.open()
    bench.consumer.abandon()
    bench.consumer.on_tick(0)
    assert bench.lifecycle.state is State.RUNNING
    bench.consumer.on_lost(bench.session, ConnectionLost("gone"))
    bench.consumer.on_tick(0)
    assert bench.lifecycle.state is State.RUNNING
    assert bench.consumer.is_open
    bench.consumer.stop(5)
