"""The states of a connection and their events, as docs/architecture.md lists them; the test is the runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp.amqp import connection as module
from jsonrpc_amqp.amqp.back_off import LONGEST, SHORTEST, STABLE
from jsonrpc_amqp.amqp.base import Plan, Publish
from jsonrpc_amqp.amqp.connection import Connection, State
from jsonrpc_amqp.amqp.inbox import FLUSH_SECONDS
from jsonrpc_amqp.amqp.link import Link
from jsonrpc_amqp.amqp.session import LiveSession
from jsonrpc_amqp.amqp.url import BrokerURL
from jsonrpc_amqp.errors import AccessRefused, ConnectionLost, NotConnected, TopologyMismatch, TransportError
from jsonrpc_amqp.options import ConnectionOptions
from jsonrpc_amqp.runtime.base import Driven, InlineJobs

from .fake_link import PUBLISHER, FakeLink, delivery
from .fake_listener import FakeListener

MESSAGE = Publish("rpc", "k", b"{}", correlation_id="1")


class FakeRuntime:
    """A runtime that does nothing by itself."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.wakes = 0
        self.blocking: list[Callable[[], None]] = []
        self.within_close: Callable[[], object] = lambda: None
        self.close_timeouts: list[float] = []
        self.deadlock = False
        self.cannot_run: Exception | None = None

    def start(self, driven: Driven, name: str) -> None:
        self.started.append(name)

    def wake(self) -> None:
        self.wakes += 1

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        if self.cannot_run is not None:
            raise self.cannot_run
        self.blocking.append(function)

    def set_inline_jobs(self, jobs: InlineJobs) -> None: ...

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None: ...

    def reclaim(self) -> None: ...

    def would_deadlock(self) -> bool:
        return self.deadlock

    def close(self, timeout: float) -> bool:
        self.close_timeouts.append(timeout)
        self.within_close()
        return True


class Fixture:
    """A connection, what it works with, and the steps of a leader."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, url: str = "amqp://u:p@broker", *, reconnect: bool = True
    ) -> None:
        self.runtime = FakeRuntime()
        self.listener = FakeListener()
        self.dialed: list[str] = []
        self.result: Link | Exception = FakeLink()
        options = ConnectionOptions(name="test", reconnect=reconnect)
        self.connection = Connection(url, options, self.runtime)
        monkeypatch.setattr(module, "dial", self._dial)

    def _dial(self, url: BrokerURL, _plan: Plan, _options: ConnectionOptions) -> Link:
        self.dialed.append(url.host)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def state(self) -> State:
        return self.connection._state

    @property
    def session(self) -> LiveSession:
        session = self.connection._session
        assert session is not None
        return session

    def start(self) -> None:
        self.connection.start(self.listener)

    def tick(self, later: float = 0) -> float | None:
        return self.connection.tick(time.monotonic() + later)

    def dial(self, result: Link | Exception | None = None) -> None:
        """Have the next attempt begin and end with this result."""
        if result is not None:
            self.result = result
        self.tick(later=LONGEST)
        self.finish_attempt()
        self.tick()

    def finish_attempt(self) -> None:
        """Run what blocks."""
        self.runtime.blocking.pop()()

    def open(self, link: FakeLink | None = None) -> FakeLink:
        """Have a connection that is open, and forget how it came to be."""
        link = FakeLink() if link is None else link
        if self.state() is State.IDLE:
            self.start()
        self.dial(link)
        assert self.state() is State.OPEN
        self.listener.take()
        return link

    def close(self, timeout: float = 5) -> None:
        """Begin to close, as another thread does that does not wait here for the end."""
        self.connection.close(timeout)
        self.tick()


Make = Callable[..., Fixture]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(*args: Any, **options: Any) -> Fixture:
        return Fixture(monkeypatch, *args, **options)

    return make


@pytest.fixture
def fixture(make: Make) -> Fixture:
    return make()


# -- IDLE -----------------------------------------------------------------------------------------


def test_idle_waits_for_start(fixture: Fixture) -> None:
    assert fixture.state() is State.IDLE
    assert fixture.connection.interest() == (None, False)
    fixture.start()
    fixture.start()
    assert fixture.state() is State.WAITING
    assert fixture.runtime.started == ["test-io"]
    assert fixture.runtime.wakes == 1


def test_close_of_one_that_was_never_started(fixture: Fixture) -> None:
    fixture.connection.close(1)
    assert fixture.state() is State.CLOSED
    assert fixture.connection.finished
    assert fixture.runtime.close_timeouts == []
    fixture.start()
    assert fixture.runtime.started == []


# -- WAITING --------------------------------------------------------------------------------------


def test_the_first_attempt_is_due_at_once(fixture: Fixture) -> None:
    fixture.start()
    fixture.tick()
    assert fixture.state() is State.DIALING
    assert fixture.dialed == []  # it blocks, so it runs elsewhere
    fixture.finish_attempt()
    assert fixture.dialed == ["broker"]
    assert fixture.state() is State.DIALING  # the leader has not looked at the result


def test_the_next_attempt_waits_for_its_time(fixture: Fixture) -> None:
    fixture.start()
    before = time.monotonic()
    fixture.dial(NotConnected("refused"))
    assert fixture.state() is State.WAITING
    due = fixture.connection.tick(before)
    assert due is not None
    assert before + SHORTEST / 2 <= due <= time.monotonic() + 2 * SHORTEST
    fixture.connection.tick(due - 0.01)
    assert fixture.state() is State.WAITING
    fixture.connection.tick(due)
    assert fixture.state() is State.DIALING


def test_close_while_waiting(fixture: Fixture) -> None:
    fixture.start()
    fixture.dial(NotConnected("refused"))
    fixture.listener.take()
    fixture.close(5)
    assert fixture.state() is State.CLOSED
    assert fixture.listener.events == []
    assert fixture.runtime.close_timeouts[0] >= 5


# -- DIALING --------------------------------------------------------------------------------------


def test_a_link_opens(fixture: Fixture) -> None:
    fixture.start()
    link = FakeLink()
    fixture.dial(link)
    assert fixture.state() is State.OPEN
    assert fixture.listener.events == [("plan",), ("on_open", 1)]
    assert fixture.connection.interest() == (77, False)
    assert fixture.connection.stats == {"connections": 1}


def test_what_arrived_early_is_reported_behind_on_open(fixture: Fixture) -> None:
    fixture.start()
    link = FakeLink()
    link.early = delivery(1)
    fixture.dial(link)
    assert fixture.listener.events == [("plan",), ("on_open", 1), ("on_deliveries", [1])]


def test_what_the_tls_layer_holds_is_reported_behind_on_open(fixture: Fixture) -> None:
    fixture.start()
    link = FakeLink(tls=True)
    link.early, link.reads = delivery(1), [delivery(2)]
    fixture.dial(link)
    assert fixture.listener.events[1:] == [("on_open", 1), ("on_deliveries", [1]), ("on_deliveries", [2])]


@pytest.mark.parametrize("error", [NotConnected("refused"), OSError("refused"), ZeroDivisionError("refused")])
def test_a_failed_attempt_is_followed_by_another(fixture: Fixture, error: Exception) -> None:
    fixture.start()
    fixture.dial(error)
    assert fixture.state() is State.WAITING
    assert fixture.listener.events == [("plan",), ("on_failed", NotConnected, True)]
    assert "refused" in str(fixture.listener.errors[0])
    assert fixture.connection.stats == {"failed_attempts": 1}
    fixture.open()


def test_brokers_are_tried_in_turn_without_a_pause(make: Make) -> None:
    fixture = make("amqp://one;amqp://two;amqp://three")
    fixture.result = NotConnected("refused")
    fixture.start()
    for _ in range(3):
        fixture.tick()  # no later than now
        fixture.finish_attempt()
        fixture.tick()
    fixture.tick(later=LONGEST)
    fixture.finish_attempt()
    assert fixture.dialed == ["one", "two", "three", "one"]


@pytest.mark.parametrize("error", [AccessRefused("wrong password"), TopologyMismatch("other properties")])
def test_refused_before_the_first_success_is_final_until_start(fixture: Fixture, error: TransportError) -> None:
    fixture.start()
    fixture.dial(error)
    assert fixture.state() is State.IDLE
    assert fixture.listener.events == [("plan",), ("on_failed", type(error), False)]
    fixture.tick(later=60)
    assert fixture.runtime.blocking == []
    fixture.start()
    assert fixture.runtime.started == ["test-io"]  # the runtime drives it still
    fixture.dial(FakeLink())
    assert fixture.state() is State.OPEN


def test_refused_after_a_success_is_tried_again(fixture: Fixture) -> None:
    fixture.open()
    fixture.connection.fail(ConnectionLost("gone"))
    fixture.listener.take()
    fixture.dial(AccessRefused("permissions change"))
    assert fixture.state() is State.WAITING
    assert fixture.listener.events == [("plan",), ("on_failed", AccessRefused, True)]


def test_without_reconnect_a_failed_attempt_is_final_until_start(make: Make) -> None:
    fixture = make(reconnect=False)
    fixture.start()
    fixture.dial(NotConnected("refused"))
    assert fixture.state() is State.IDLE
    assert fixture.listener.events == [("plan",), ("on_failed", NotConnected, False)]
    fixture.open()


def test_a_thread_that_cannot_start_is_a_failed_attempt(fixture: Fixture) -> None:
    fixture.runtime.cannot_run = RuntimeError("can't start new thread")
    fixture.start()
    fixture.tick()
    assert fixture.state() is State.WAITING
    assert "can't start new thread" in str(fixture.listener.errors[0])


def test_a_plan_that_raises_is_a_failed_attempt(fixture: Fixture) -> None:
    fixture.listener.raises["plan"] = ValueError("no plan")
    fixture.start()
    fixture.tick()
    assert fixture.state() is State.WAITING
    assert fixture.listener.events == [("plan",), ("on_failed", NotConnected, True)]


def test_a_connection_that_ends_as_it_goes_live_is_a_failed_attempt(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = FakeLink()

    def fail(**_handlers: object) -> bytes:
        raise OSError("bad file descriptor")

    monkeypatch.setattr(link, "go_live", fail)
    fixture.start()
    fixture.dial(link)
    assert fixture.state() is State.WAITING
    assert link.discarded == 1
    assert fixture.listener.events == [("plan",), ("on_failed", NotConnected, True)]
    assert fixture.connection.stats == {"failed_attempts": 1}
    assert fixture.connection.interest() == (None, False)
    fixture.open()


def test_close_while_dialing_discards_the_link_that_comes(fixture: Fixture) -> None:
    link = FakeLink()
    fixture.result = link
    fixture.start()
    fixture.tick()
    fixture.close()
    assert fixture.state() is State.CLOSED
    fixture.finish_attempt()
    assert link.discarded >= 1
    assert fixture.listener.take() == [("plan",)]
    fixture.tick()
    assert fixture.state() is State.CLOSED
    assert fixture.listener.events == []


def test_a_link_that_comes_behind_close_is_discarded(fixture: Fixture) -> None:
    link = FakeLink()
    fixture.result = link
    fixture.start()
    fixture.tick()
    fixture.connection.close(1)
    fixture.finish_attempt()
    fixture.tick()
    assert fixture.state() is State.CLOSED
    assert link.discarded == 1
    assert fixture.listener.events == [("plan",)]


def test_a_link_that_comes_before_close_is_closed_in_order(fixture: Fixture) -> None:
    link = FakeLink()
    fixture.result = link
    fixture.start()
    fixture.tick()
    fixture.finish_attempt()
    fixture.connection.close(1)
    fixture.tick()
    assert fixture.state() is State.CLOSING
    assert fixture.listener.events == [("plan",), ("on_open", 1)]
    assert link.written == b"<connection.close>"


def test_an_error_that_comes_after_close_is_not_reported(fixture: Fixture) -> None:
    fixture.result = NotConnected("late")
    fixture.start()
    fixture.tick()
    fixture.close()
    fixture.finish_attempt()
    fixture.tick()
    assert fixture.listener.events == [("plan",)]
    assert fixture.state() is State.CLOSED


# -- OPEN: reading and writing --------------------------------------------------------------------


def test_deliveries_are_reported(fixture: Fixture) -> None:
    link = fixture.open()
    link.reads = [delivery(1) + delivery(2)]
    fixture.connection.on_readable()
    assert fixture.listener.events == [("on_deliveries", [1, 2])]


def test_during_a_burst_the_leader_is_called_again_to_flush(fixture: Fixture) -> None:
    link = fixture.open()
    link.reads = [delivery(1) + delivery(2)]
    fixture.connection.on_readable()
    now = fixture.session.heartbeat.last_read
    assert fixture.connection.tick(now) == now + FLUSH_SECONDS
    assert fixture.session.writes_soon
    assert fixture.connection.tick(now + 1) is None
    assert not fixture.session.writes_soon


def test_a_tick_writes_what_is_queued(fixture: Fixture) -> None:
    link = fixture.open()
    fixture.session.publish(MESSAGE)
    fixture.tick()
    assert link.written == link.encoder.publish(PUBLISHER, MESSAGE)


def test_room_to_write_is_watched_for_while_the_socket_takes_no_more(fixture: Fixture) -> None:
    link = fixture.open()
    link.rooms = [1]
    wakes = fixture.runtime.wakes
    fixture.session.publish(MESSAGE)
    fixture.session.flush()
    assert fixture.connection.interest() == (77, True)
    assert fixture.runtime.wakes > wakes
    fixture.connection.on_writable()
    assert fixture.connection.interest() == (77, False)
    assert link.written == link.encoder.publish(PUBLISHER, MESSAGE)


def test_without_a_session_readiness_is_nothing(fixture: Fixture) -> None:
    fixture.connection.on_readable()
    fixture.connection.on_writable()
    fixture.connection.fail(ConnectionLost("late"))
    fixture.connection.invalidate(ConnectionLost("late"))
    assert fixture.state() is State.IDLE


def test_on_tick_is_called_when_it_asked_to_be(fixture: Fixture) -> None:
    fixture.open()
    now = time.monotonic()
    fixture.listener.next_tick = now + 10
    fixture.connection.wake()
    fixture.listener.ticks.clear()
    assert fixture.connection.tick(now) == now + 10
    assert not fixture.connection.is_due(now + 9)
    assert fixture.connection.tick(now + 9) == now + 10
    assert fixture.connection.is_due(now + 10)
    fixture.connection.tick(now + 10)
    assert fixture.listener.ticks == [now, now + 10]


def test_a_heartbeat_is_due_before_anything_else(fixture: Fixture) -> None:
    fixture.open(FakeLink(heartbeat=10))
    now = time.monotonic()
    fixture.connection.wake()
    due = fixture.connection.tick(now)
    assert due == fixture.session.heartbeat.next_event()


def test_would_deadlock_on_the_leader_and_within_a_write(fixture: Fixture) -> None:
    link = fixture.open()
    seen = [fixture.connection.would_deadlock()]
    link.within_write = lambda: seen.append(fixture.connection.would_deadlock())
    fixture.session.publish(MESSAGE)
    fixture.session.flush()
    fixture.runtime.deadlock = True
    seen.append(fixture.connection.would_deadlock())
    assert seen == [False, True, True]


# -- OPEN: the end --------------------------------------------------------------------------------


def end_of_file(fixture: Fixture) -> None:
    fixture.session.link.reads = [b""]  # type: ignore[attr-defined]
    with pytest.raises(ConnectionLost) as caught:
        fixture.connection.on_readable()
    fixture.connection.fail(caught.value)  # as a runtime does


def error_of_a_write(fixture: Fixture) -> None:
    def fail() -> None:
        raise BrokenPipeError("broken pipe")

    fixture.session.link.within_write = fail  # type: ignore[attr-defined]
    fixture.session.publish(MESSAGE)
    fixture.session.flush()
    fixture.tick()


def silence(fixture: Fixture) -> None:
    fixture.session.heartbeat.last_read -= 21
    fixture.connection.wake()
    fixture.tick()


def cancelled_consumer(fixture: Fixture) -> None:
    fixture.connection.post(fixture.session.link.handlers["on_consumer_cancelled"])  # type: ignore[attr-defined]
    fixture.tick()


def error_of_the_listener(fixture: Fixture) -> None:
    fixture.listener.raises["on_tick"] = ZeroDivisionError()
    fixture.connection.wake()
    fixture.tick()


def exit_of_the_listener(fixture: Fixture) -> None:
    fixture.listener.raises["on_tick"] = SystemExit()
    fixture.connection.wake()
    fixture.tick()


def invalid(fixture: Fixture) -> None:
    fixture.connection.invalidate(ConnectionLost("found useless"))
    fixture.tick()


ENDS = [
    end_of_file,
    error_of_a_write,
    silence,
    cancelled_consumer,
    error_of_the_listener,
    exit_of_the_listener,
    invalid,
]


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_a_session_is_reported_and_followed_by_an_attempt(
    fixture: Fixture, end: Callable[[Fixture], None]
) -> None:
    link = fixture.open(FakeLink(heartbeat=10))
    end(fixture)
    assert fixture.state() is State.WAITING
    assert fixture.listener.take() == [("on_lost", 1)]
    assert isinstance(fixture.listener.errors[0], ConnectionLost)
    assert link.discarded == 1
    assert fixture.connection.interest() == (None, False)
    fixture.dial(FakeLink())
    assert fixture.listener.events == [("plan",), ("on_open", 2)]


@pytest.mark.parametrize("end", ENDS)
def test_without_reconnect_it_is_idle_then(make: Make, end: Callable[[Fixture], None]) -> None:
    fixture = make(reconnect=False)
    fixture.open(FakeLink(heartbeat=10))
    end(fixture)
    assert fixture.state() is State.IDLE
    assert fixture.listener.take() == [("on_lost", 1), ("on_failed", NotConnected, False)]
    assert str(fixture.listener.errors[0]) == str(fixture.listener.errors[1])
    fixture.open()
    assert fixture.session.generation == 2


def test_a_session_ends_once(fixture: Fixture) -> None:
    fixture.open()
    session = fixture.session
    fixture.connection.end(session, ConnectionLost("first"))
    fixture.connection.end(session, ConnectionLost("second"))
    assert fixture.listener.events == [("on_lost", 1)]


def test_the_end_of_an_old_session_leaves_the_new_one(fixture: Fixture) -> None:
    fixture.open()
    old = fixture.session
    fixture.connection.fail(ConnectionLost("gone"))
    fixture.open()
    fixture.connection.end(old, ConnectionLost("late"))
    assert fixture.state() is State.OPEN
    assert fixture.session.generation == 2


def test_a_connection_that_lived_is_made_again_nearly_at_once(fixture: Fixture) -> None:
    fixture.open()
    fixture.session.opened -= STABLE
    before = time.monotonic()
    fixture.connection.fail(ConnectionLost("gone"))
    assert before <= fixture.connection._retry_at <= time.monotonic() + SHORTEST


def test_one_that_ended_soon_is_not_repeated_without_a_pause(fixture: Fixture) -> None:
    fixture.open()
    before = time.monotonic()
    fixture.connection.fail(ConnectionLost("gone"))
    assert fixture.connection._retry_at >= before + SHORTEST / 2


def test_after_an_interrupt_it_is_made_again_at_once(fixture: Fixture) -> None:
    fixture.open()
    fixture.connection.invalidate(KeyboardInterrupt())
    assert not fixture.session.publish(MESSAGE)
    assert fixture.listener.events == []  # the leader reports it
    fixture.tick()
    assert fixture.connection._retry_at <= time.monotonic()
    assert "interrupted while a reply was read: KeyboardInterrupt()" in str(fixture.listener.errors[0])
    fixture.tick()
    assert fixture.state() is State.DIALING


def test_an_exception_of_another_kind_is_no_interrupt(fixture: Fixture) -> None:
    fixture.open()
    before = time.monotonic()
    fixture.connection.invalidate(ValueError("of a handler"))
    fixture.tick()
    assert fixture.state() is State.WAITING
    assert fixture.connection._retry_at >= before + SHORTEST / 2


@pytest.mark.parametrize("method", ["on_open", "on_deliveries"])
def test_an_error_of_a_callback_while_it_opens_ends_the_session(fixture: Fixture, method: str) -> None:
    link = FakeLink()
    link.early = delivery(1)
    fixture.listener.raises[method] = ZeroDivisionError("mistake")
    fixture.start()
    fixture.dial(link)
    assert fixture.state() is State.WAITING
    assert fixture.listener.events[-1] == ("on_lost", 1)
    assert "ZeroDivisionError('mistake')" in str(fixture.listener.errors[0])
    assert link.discarded == 1


@pytest.mark.parametrize("method", ["on_lost", "on_failed"])
def test_an_error_of_a_callback_at_the_end_leaves_a_connection_that_goes_on(fixture: Fixture, method: str) -> None:
    fixture.listener.raises[method] = ZeroDivisionError("mistake")
    fixture.start()
    fixture.dial(NotConnected("refused"))
    fixture.open()
    invalid(fixture)
    fixture.open()
    assert fixture.session.generation == 2


@pytest.mark.parametrize("error", [ZeroDivisionError("mistake"), SystemExit("mistake")])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("reconnect", [True, False])
def test_an_error_of_on_lost_raises_nothing_at_the_leader(
    make: Make, end: Callable[[Fixture], None], error: BaseException, reconnect: bool
) -> None:
    fixture = make(reconnect=reconnect)
    fixture.open(FakeLink(heartbeat=10))
    fixture.listener.raises["on_lost"] = error
    end(fixture)
    failed = [] if reconnect else [("on_failed", NotConnected, False)]
    assert fixture.listener.take() == [("on_lost", 1), *failed]
    fixture.open()
    assert fixture.session.generation == 2


@pytest.mark.parametrize("error", [ZeroDivisionError("mistake"), SystemExit("mistake")])
@pytest.mark.parametrize("end", ENDS)
def test_an_error_of_an_outcome_does_not_keep_the_session_from_ending(
    fixture: Fixture, end: Callable[[Fixture], None], error: BaseException
) -> None:
    outcomes: list[TransportError | None] = []

    def fail(_error: TransportError | None) -> None:
        raise error

    fixture.open(FakeLink(heartbeat=10))
    fixture.session.publish_confirmed(MESSAGE, fail)
    fixture.session.publish_confirmed(MESSAGE, outcomes.append)
    end(fixture)
    assert fixture.listener.take() == [("on_lost", 1)]
    assert [type(each) for each in outcomes] == [ConnectionLost]
    fixture.open()
    assert fixture.session.generation == 2


# -- CLOSING and CLOSED ---------------------------------------------------------------------------


def test_close_writes_what_is_queued_and_waits_for_the_broker(fixture: Fixture) -> None:
    link = fixture.open()
    fixture.session.publish(MESSAGE)
    fixture.close()
    assert fixture.state() is State.CLOSING
    finished = [fixture.connection.finished]
    assert link.written == link.encoder.publish(PUBLISHER, MESSAGE) + b"<connection.close>"
    assert fixture.connection.interest() == (77, False)
    link.handlers["on_closed"]()
    finished.append(fixture.connection.finished)
    assert finished == [False, True]
    assert fixture.state() is State.CLOSED
    assert link.discarded == 1
    assert fixture.listener.events == [("on_lost", 1)]
    assert "the connection was closed" in str(fixture.listener.errors[0])


def test_a_close_that_the_broker_does_not_confirm_ends_in_time(fixture: Fixture) -> None:
    link = fixture.open()
    fixture.connection.close(3)
    begun = time.monotonic()
    due = fixture.connection.tick(begun)
    assert due is not None
    assert begun + 2 < due <= begun + 3
    fixture.connection.tick(due - 0.01)
    assert fixture.state() is State.CLOSING
    fixture.connection.tick(due)
    assert (fixture.state(), link.discarded) == (State.CLOSED, 1)


@pytest.mark.parametrize("reconnect", [True, False])
@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_socket_while_closing(make: Make, end: Callable[[Fixture], None], reconnect: bool) -> None:
    fixture = make(reconnect=reconnect)
    fixture.open(FakeLink(heartbeat=10))
    fixture.close()
    end(fixture)
    assert fixture.state() is State.CLOSED
    assert fixture.listener.events == [("on_lost", 1)]


def test_deliveries_are_reported_while_closing(fixture: Fixture) -> None:
    link = fixture.open()
    fixture.close()
    link.reads = [delivery(1)]
    fixture.connection.on_readable()
    assert fixture.listener.events == [("on_deliveries", [1])]


def test_close_of_an_idle_one_that_was_started(make: Make) -> None:
    fixture = make(reconnect=False)
    fixture.start()
    fixture.dial(NotConnected("refused"))
    fixture.close()
    assert fixture.state() is State.CLOSED


def test_close_waits_a_little_longer_than_its_timeout(fixture: Fixture) -> None:
    link = fixture.open()

    def lead() -> None:
        fixture.tick()
        link.handlers["on_closed"]()

    fixture.runtime.within_close = lead
    fixture.connection.close(5)
    assert fixture.state() is State.CLOSED
    assert 5 < fixture.runtime.close_timeouts[0] < 6


@pytest.mark.parametrize("after", ["finished", "closing"])
def test_a_second_close(fixture: Fixture, after: str) -> None:
    link = fixture.open()
    fixture.close()
    if after == "finished":
        link.handlers["on_closed"]()
    fixture.close()
    if after == "closing":
        link.handlers["on_closed"]()
    assert fixture.state() is State.CLOSED
    assert fixture.listener.events == [("on_lost", 1)]


def test_closed_is_final(fixture: Fixture) -> None:
    link = fixture.open()
    fixture.close()
    link.handlers["on_closed"]()
    link.handlers["on_closed"]()
    fixture.listener.take()
    ticks = len(fixture.listener.ticks)
    fixture.start()
    assert fixture.tick(later=60) is None
    assert fixture.state() is State.CLOSED
    assert fixture.listener.events == []
    assert len(fixture.listener.ticks) == ticks
    assert fixture.runtime.blocking == []


def test_in_a_forked_process_close_leaves_the_socket_alone(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    link = fixture.open()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    fixture.connection.close(1)
    assert fixture.runtime.close_timeouts == []
    assert link.writes == []
    assert link.discarded == 0
    assert fixture.connection.finished


# -- what a URL says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("amqp://", "guest"),
        ("amqp://alice:secret@one;amqp://alice:other@two", "alice"),
        ("amqp://alice@one;amqp://bob@two", None),
        ("amqps://alice@one?auth_mechanism=external", None),
    ],
)
def test_the_user_is_known_where_one_url_says_it(make: Make, url: str, user: str | None) -> None:
    assert make(url).connection.user == user


def test_tls_options_that_would_not_be_used_are_refused() -> None:
    with pytest.raises(ValueError, match="which has no TLS"):
        Connection("amqp://", ConnectionOptions(tls={"ca_certs": "ca.pem"}), FakeRuntime())
