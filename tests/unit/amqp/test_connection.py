"""The states of a connection: each event in each of them, with a fake runtime, a fake link and a fake clock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from amqp import spec
from amqp.serialization import dumps

from jsonrpc_amqp.amqp import connection, deadline, dialer
from jsonrpc_amqp.amqp.back_off import BackOff
from jsonrpc_amqp.amqp.base import Plan, Publish, Session
from jsonrpc_amqp.amqp.connection import Connection, State
from jsonrpc_amqp.amqp.deadline import Deadline
from jsonrpc_amqp.amqp.frames import HEARTBEAT
from jsonrpc_amqp.amqp.happy_eyeballs import AddressMemory
from jsonrpc_amqp.amqp.session import LiveSession
from jsonrpc_amqp.amqp.url import BrokerURL
from jsonrpc_amqp.errors import AccessRefused, ConnectionLost, NotConnected, TopologyMismatch, TransportError
from jsonrpc_amqp.options import ConnectionOptions
from jsonrpc_amqp.runtime.base import Driven, InlineJobs

from .fakes import CONFIRMER, PATIENCE, Clock, FakeLink, FakeListener
from .tools import deliver, written

ACK = written(CONFIRMER, spec.Basic.Ack, dumps("Lb", (1, False)))
MESSAGE = Publish("e", "k", b"{}", correlation_id="1")
REFUSED = [AccessRefused("no permission"), TopologyMismatch("another type")]


class FakeRuntime:
    """
    A runtime that drives nothing by itself: what blocks waits until the test calls it.

    Attributes:
        blocking: What ``run_blocking`` was given.
        is_leader: What ``would_deadlock`` returns.
        on_close: Called when the connection waits for its end.
    """

    writes_behind = False

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.wakes = 0
        self.unwatched = 0
        self.blocking: list[Callable[[], None]] = []
        self.no_threads = False
        self.is_leader = False
        self.closes: list[float] = []
        self.on_close: Callable[[], None] = lambda: None

    def start(self, driven: Driven, name: str) -> None:
        self.starts.append(name)

    def wake(self) -> None:
        self.wakes += 1

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        if self.no_threads:
            raise RuntimeError("can't start new thread")
        self.blocking.append(function)

    def set_inline_jobs(self, jobs: InlineJobs) -> None:
        raise AssertionError("not by a connection")

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        raise AssertionError("not by a connection")

    def reclaim(self) -> None:
        raise AssertionError("not by a connection")

    def unwatch(self) -> None:
        self.unwatched += 1

    def would_deadlock(self) -> bool:
        return self.is_leader

    def close(self, timeout: float) -> bool:
        self.closes.append(timeout)
        self.on_close()
        return True


class Target:
    """
    A connection, driven by the test.

    Attributes:
        dialed: The hosts of the URLs that were dialed.
        deadlines: Those of the attempts.
        results: What each attempt to connect comes to: a link, or an error.
    """

    def __init__(self, clock: Clock, url: str = "amqp://a", **options: Any) -> None:
        self.clock = clock
        self.runtime = FakeRuntime()
        self.listener = FakeListener()
        self.connection = Connection(url, ConnectionOptions("test", **options), self.runtime)
        self.dialed: list[str] = []
        self.deadlines: list[Deadline] = []
        self.results: list[FakeLink | Exception] = []

    def dial(
        self, url: BrokerURL, plan: Plan, options: ConnectionOptions, deadline: Deadline, memory: AddressMemory
    ) -> FakeLink:
        self.dialed.append(url.host)
        self.deadlines.append(deadline)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    @property
    def state(self) -> State:
        return self.connection._state

    @property
    def session(self) -> LiveSession:
        """The newest session that was reported."""
        return cast(LiveSession, [call[1] for call in self.listener.heard if call[0] == "open"][-1])

    def tick(self, seconds: float = 0.0) -> float | None:
        self.clock.now += seconds
        return self.connection.tick(self.clock.now)

    def start(self) -> None:
        """IDLE -> DIALING."""
        self.connection.start(self.listener)
        self.tick()

    def dial_ends(self, result: FakeLink | Exception) -> None:
        """End the attempt to connect."""
        self.results.append(result)
        self.runtime.blocking.pop(0)()
        self.tick()

    def open(self, *, sends_requests: bool = False) -> FakeLink:
        """IDLE -> OPEN."""
        link = FakeLink()
        link.sends_requests = sends_requests
        self.start()
        self.dial_ends(link)
        assert self.state is State.OPEN
        return link

    def lose(self, error: Exception | None = None) -> None:
        """What a runtime does with an error of ``on_readable``."""
        self.connection.fail(error or ConnectionLost("gone"))

    def reports(self) -> list[tuple[Any, ...]]:
        """Return what the listener heard since the last time, but for plans."""
        heard, self.listener.heard = self.listener.heard, []
        return [call for call in heard if call[0] != "plan"]


Make = Callable[..., Target]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes connections that share a clock, and whose back-off has no random part."""
    clock = Clock()
    for module in (connection, dialer, deadline):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("jsonrpc_amqp.amqp.session.time", clock)
    monkeypatch.setattr("jsonrpc_amqp.amqp.inbox.time", clock)
    monkeypatch.setattr("jsonrpc_amqp.amqp.outbox.time", clock)
    monkeypatch.setattr("jsonrpc_amqp.amqp.consumption.time", clock)
    monkeypatch.setattr(dialer, "BackOff", lambda brokers: BackOff(brokers, lambda low, high: high))

    def make(*args: Any, **options: Any) -> Target:
        target = Target(clock, *args, **options)
        monkeypatch.setattr(dialer, "dial", target.dial)
        monkeypatch.setattr(connection, "Link", FakeLink)
        return target

    return make


@pytest.fixture
def target(make: Make) -> Target:
    return make()


# -- the table ------------------------------------------------------------------------------------------------------


def idle(target: Target) -> None:
    """Nothing to do."""


def waiting(target: Target) -> None:
    target.start()
    target.dial_ends(NotConnected("no broker"))


def dialing(target: Target) -> None:
    target.start()


def opened(target: Target) -> None:
    target.open()


def closing(target: Target) -> None:
    target.open()
    target.connection.close(1.0)
    target.tick()


def closed(target: Target) -> None:
    target.connection.close(1.0)
    target.tick()


STATES: dict[State, Callable[[Target], None]] = {
    State.IDLE: idle,
    State.WAITING: waiting,
    State.DIALING: dialing,
    State.OPEN: opened,
    State.CLOSING: closing,
    State.CLOSED: closed,
}


def start(target: Target) -> None:
    target.connection.start(target.listener)


def time_passes(target: Target) -> None:
    target.tick(3.0)


def broker_is_silent(target: Target) -> None:
    target.tick(20.1)


def is_lost(target: Target) -> None:
    target.lose()


def write_is_interrupted(target: Target) -> None:
    target.connection.invalidate(KeyboardInterrupt())
    target.tick()


def close(target: Target) -> None:
    target.connection.close(1.0)
    target.tick()


def dial_succeeds(target: Target) -> None:
    target.dial_ends(FakeLink())


def dial_fails(target: Target) -> None:
    target.dial_ends(NotConnected("no broker"))


def dial_is_refused(target: Target) -> None:
    target.dial_ends(AccessRefused("no permission"))


def close_is_confirmed(target: Target) -> None:
    target.connection.finish()


S = State
CHANGES = [
    (start, {S.IDLE: S.WAITING}),
    (time_passes, {S.WAITING: S.DIALING, S.CLOSING: S.CLOSED}),
    (broker_is_silent, {S.WAITING: S.DIALING, S.DIALING: S.WAITING, S.OPEN: S.WAITING, S.CLOSING: S.CLOSED}),
    (is_lost, {S.OPEN: S.WAITING, S.CLOSING: S.CLOSED}),
    # At once, so that the same tick begins the next attempt.
    (write_is_interrupted, {S.OPEN: S.DIALING, S.CLOSING: S.CLOSED}),
    (close, {S.IDLE: S.CLOSED, S.WAITING: S.CLOSED, S.DIALING: S.CLOSED, S.OPEN: S.CLOSING}),
    (close_is_confirmed, {S.CLOSING: S.CLOSED}),
]


@pytest.mark.parametrize("before", STATES, ids=lambda state: state.name)
@pytest.mark.parametrize(("event", "changes"), CHANGES, ids=[event.__name__ for event, _ in CHANGES])
def test_each_event_in_each_state(
    target: Target, before: State, event: Callable[[Target], None], changes: dict[State, State]
) -> None:
    STATES[before](target)
    assert target.state is before
    event(target)
    assert target.state is changes.get(before, before)
    assert target.connection.finished is (target.state is State.CLOSED)


@pytest.mark.parametrize(
    ("event", "after"),
    [(dial_succeeds, State.OPEN), (dial_fails, State.WAITING), (dial_is_refused, State.IDLE)],
)
def test_the_end_of_an_attempt(target: Target, event: Callable[[Target], None], after: State) -> None:
    dialing(target)
    event(target)
    assert target.state is after


# -- connecting -----------------------------------------------------------------------------------------------------


def test_it_connects_and_reports_the_session(target: Target) -> None:
    link = target.open()
    assert target.runtime.starts == ["test-io"]
    assert target.listener.names() == ["plan", "open"]
    assert target.session.link is cast(Any, link)
    assert target.session.generation == 1
    assert target.connection.stats == {"connections": 1}


def test_a_second_start_changes_nothing(target: Target) -> None:
    target.open()
    target.connection.start(FakeListener())
    target.tick()
    assert target.runtime.starts == ["test-io"]
    assert target.runtime.blocking == []


def test_bytes_that_came_with_the_set_up_are_reported(target: Target) -> None:
    link = FakeLink()
    link.early = deliver(b"early")
    target.start()
    target.dial_ends(link)
    assert target.listener.heard[-2:] == [("open", target.session), ("deliveries", [b"early"])]


def test_bytes_that_the_tls_layer_holds_from_the_set_up_are_read(target: Target) -> None:
    link = FakeLink()
    link.tls = True
    link.incoming = [deliver(b"held")]
    target.start()
    target.dial_ends(link)
    assert target.listener.heard[-1] == ("deliveries", [b"held"])


def test_a_failed_attempt_is_repeated_after_a_while_that_doubles(target: Target) -> None:
    target.start()
    delays: list[float] = []
    for _ in range(6):
        target.dial_ends(NotConnected("no broker"))
        [(_, _, delay)] = target.reports()
        delays.append(delay)
        due = target.tick()
        assert due == target.clock.now + delay
        target.tick(delay)
    assert delays == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert target.connection.stats["failed_attempts"] == 6


def test_each_broker_is_tried_before_it_waits(make: Make) -> None:
    target = make("amqp://a;amqp://b;amqp://c")
    target.start()
    delays = []
    for _ in range(4):
        target.dial_ends(NotConnected("no broker"))
        delays.append(target.reports()[0][2])
        target.tick(delays[-1])
    assert target.dialed == ["a", "b", "c", "a"]
    assert delays == [0.0, 0.0, 0.2, 0.0]


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: type(error).__name__)
def test_what_is_refused_before_the_first_connection_is_final(target: Target, error: TransportError) -> None:
    target.start()
    target.dial_ends(error)
    assert target.reports() == [("failed", error, None)]
    assert target.state is State.IDLE
    assert target.tick(3600) is None


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: type(error).__name__)
def test_what_is_refused_after_a_connection_is_tried_again(target: Target, error: TransportError) -> None:
    target.open()
    target.lose()
    target.tick(3)
    target.reports()
    target.dial_ends(error)
    [(name, reported, delay)] = target.reports()
    assert (name, reported, delay is None) == ("failed", error, False)
    assert target.state is State.WAITING


def test_it_can_be_started_again_after_a_refusal(target: Target) -> None:
    target.start()
    target.dial_ends(REFUSED[0])
    target.clock.now += 0.2
    target.open()
    assert target.runtime.starts == ["test-io"]


def test_a_refusal_stands_for_a_while_that_doubles(target: Target) -> None:
    target.start()
    for stands in (0.2, 0.4, 0.8, 1.6, 2.0, 2.0):
        target.dial_ends(REFUSED[0])
        target.clock.now += stands - 0.01
        target.start()
        assert target.reports() == [("failed", REFUSED[0], None)] * 2
        target.clock.now += 0.02
        target.start()
        assert (target.reports(), target.state) == ([], State.DIALING)


def test_a_refusal_that_stands_is_reported_to_all_that_start_meanwhile(target: Target) -> None:
    target.start()
    target.dial_ends(REFUSED[0])
    target.reports()
    for _ in range(3):
        target.connection.start(target.listener)
    target.tick()
    assert target.reports() == [("failed", REFUSED[0], None)]
    assert target.runtime.blocking == []
    assert target.connection.stats["failed_attempts"] == 1


def test_after_a_long_time_the_back_off_of_refusals_begins_anew(target: Target) -> None:
    for _ in range(5):
        target.start()
        target.dial_ends(REFUSED[0])
        target.clock.now += 60
    target.start()
    target.dial_ends(REFUSED[0])
    target.clock.now += 0.2
    target.start()
    assert target.state is State.DIALING


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: type(error).__name__)
def test_a_refusal_is_final_once_every_broker_has_refused(make: Make, error: TransportError) -> None:
    target = make("amqp://a;amqp://b")
    target.start()
    target.dial_ends(error)
    assert target.reports() == [("failed", error, 0.0)]
    target.tick()
    target.dial_ends(AccessRefused("nor here"))
    [(_, refused, delay)] = target.reports()
    assert (type(refused), str(refused), delay) == (AccessRefused, f"nor here; {error}", None)
    assert target.state is State.IDLE


def test_a_good_broker_behind_one_that_refuses_is_connected_to(make: Make) -> None:
    target = make("amqp://refuses;amqp://good")
    target.start()
    target.dial_ends(REFUSED[0])
    target.tick()
    target.dial_ends(FakeLink())
    assert target.state is State.OPEN
    assert target.dialed == ["refuses", "good"]


def test_a_broker_that_is_down_may_yet_take_what_the_other_has_refused(make: Make) -> None:
    target = make("amqp://refuses;amqp://down")
    target.start()
    errors = []
    for error in (REFUSED[0], NotConnected("down"), REFUSED[0], NotConnected("down")):
        target.dial_ends(error)
        errors.append(target.reports()[0])
        target.tick(errors[-1][2])
    assert [type(error) for _, error, _ in errors] == [AccessRefused, NotConnected, NotConnected, NotConnected]
    assert str(errors[-1][1]) == "down; no permission"
    target.dial_ends(REFUSED[0])
    target.tick()
    target.dial_ends(REFUSED[1])  # it is up, and refuses as well
    assert target.reports()[-1][2] is None


def test_without_reconnect_a_failed_attempt_is_final(make: Make) -> None:
    target, error = make(reconnect=False), NotConnected("no broker")
    target.start()
    target.dial_ends(error)
    assert target.reports() == [("failed", error, None)]
    assert target.state is State.IDLE


def test_without_reconnect_each_broker_is_tried_once(make: Make) -> None:
    target = make("amqp://a;amqp://b", reconnect=False)
    target.start()
    target.dial_ends(NotConnected("no a"))
    target.tick()
    target.dial_ends(NotConnected("no b"))
    assert [(str(error), delay) for _, error, delay in target.reports()] == [("no a", 0.0), ("no b; no a", None)]
    assert (target.state, target.dialed) == (State.IDLE, ["a", "b"])


def test_an_attempt_that_does_not_keep_to_its_deadline_is_given_up(target: Target) -> None:
    target.start()
    assert target.tick() == target.clock.now + 5.5
    target.tick(5.5)
    [(_, error, delay)] = target.reports()
    assert type(error) is NotConnected
    assert "not made within 5 s (connect_timeout)" in str(error)
    assert (delay, target.state) == (0.2, State.WAITING)
    target.tick(delay)
    late, link = FakeLink(), FakeLink()
    target.results = [late, link]
    target.runtime.blocking.pop(0)()  # the attempt that was given up
    target.tick()
    assert late.is_discarded
    assert target.state is State.DIALING
    target.runtime.blocking.pop(0)()
    target.tick()
    assert target.session.link is cast(Any, link)
    with pytest.raises(ConnectionAbortedError):
        target.deadlines[0].left()


def test_the_attempts_that_hang_are_few(target: Target) -> None:
    target.start()
    for _ in range(10):
        target.tick(5.5)
        target.tick(3.0)
    assert len(target.runtime.blocking) == 4
    assert "a:5672: 4 earlier attempts still hang" in str(target.reports()[-1][1])
    target.results = [NotConnected("late")]
    target.runtime.blocking.pop(0)()
    target.tick(3.0)
    assert target.state is State.DIALING


def test_attempts_that_hang_do_not_keep_another_broker_from_being_tried(make: Make) -> None:
    target = make("amqp://hangs;amqp://b")
    results: list[FakeLink | Exception] = [*(NotConnected("no b") for _ in range(4)), FakeLink()]
    target.start()
    for result in results:
        target.tick(5.5)  # the first broker is given up, or not tried any more
        target.tick()
        target.results.append(result)
        target.runtime.blocking.pop()()
        target.tick()
        target.tick(3.0)
    assert len(target.runtime.blocking) == 4
    assert target.dialed == ["b"] * 5
    assert target.state is State.OPEN


def test_a_close_cancels_the_attempt(target: Target) -> None:
    target.start()
    close(target)
    target.results.append(NotConnected("cut"))
    target.runtime.blocking.pop(0)()
    with pytest.raises(ConnectionAbortedError):
        target.deadlines[0].left()
    assert target.reports() == []


def test_an_unexpected_error_of_an_attempt_says_where(target: Target) -> None:
    target.start()
    target.dial_ends(ZeroDivisionError("odd"))
    [(_, error, _)] = target.reports()
    assert isinstance(error, NotConnected)
    assert str(error) == "no connection to the broker at a:5672: ZeroDivisionError('odd')"


def test_a_system_without_threads_fails_the_attempt(target: Target) -> None:
    target.runtime.no_threads = True
    target.start()
    [(_, error, delay)] = target.reports()
    assert "can't start new thread" in str(error)
    target.runtime.no_threads = False
    target.tick(delay)
    assert target.state is State.DIALING


def test_an_error_of_the_plan_fails_the_attempt(target: Target) -> None:
    target.listener.raises["plan"] = ValueError("no plan")
    target.start()
    assert "no plan" in str(target.reports()[0][1])
    assert target.state is State.WAITING


def test_an_error_of_on_open_ends_the_session(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    target.listener.raises["open"] = ValueError("no")
    link = FakeLink()
    target.start()
    target.dial_ends(link)
    assert link.is_discarded
    assert target.state is State.WAITING
    assert "unexpected error" in caplog.text


def test_an_error_of_the_link_at_the_end_of_a_session_does_not_keep_it(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    link = target.open()

    def fail() -> None:
        raise RuntimeError("a log handler of the user's raised in py-amqp")

    link.discard = fail  # type: ignore[method-assign]
    target.lose()
    assert [name for name, *_ in target.reports()] == ["open", "lost"]
    target.tick(3.0)
    target.dial_ends(FakeLink())
    assert target.state is State.OPEN


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), MemoryError()])
def test_any_exception_ends_the_attempt_and_another_follows(
    target: Target, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_args: object) -> FakeLink:
        raise error

    target.start()
    with monkeypatch.context() as patch:
        patch.setattr(dialer, "dial", fail)
        target.runtime.blocking.pop(0)()
        target.tick()
    [(_, failure, delay)] = target.reports()
    assert type(error).__name__ in str(failure)
    target.tick(delay)
    target.dial_ends(FakeLink())
    assert target.state is State.OPEN


@pytest.mark.parametrize("where", ["plan", "session"])
def test_any_exception_around_the_attempt_ends_it_and_another_follows(
    target: Target, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_args: object) -> None:
        raise MemoryError

    target.listener.raises = {"plan": SystemExit()} if where == "plan" else {}
    link = FakeLink()
    with monkeypatch.context() as patch:
        if where == "session":
            patch.setattr(connection, "LiveSession", fail)
        target.start()
        if where == "session":
            target.dial_ends(link)
            assert link.is_discarded
    target.listener.raises.clear()
    [(_, _failure, delay)] = target.reports()
    target.tick(delay)
    target.dial_ends(FakeLink())
    assert target.state is State.OPEN


@pytest.mark.parametrize("is_driven_on", [False, True])
def test_a_link_that_comes_after_the_close_is_discarded(target: Target, is_driven_on: bool) -> None:
    target.start()
    close(target)
    link = FakeLink()
    target.results.append(link)
    target.runtime.blocking.pop(0)()
    if is_driven_on:
        target.tick()
    assert link.is_discarded
    assert target.state is State.CLOSED
    assert target.reports() == []


# -- losing a connection --------------------------------------------------------------------------------------------


def test_a_lost_session_is_reported_after_its_confirms_and_made_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, order = target.open(sends_requests=True), list[object]()
    target.session.publish_confirmed(MESSAGE, order.append)
    target.reports()
    error = ConnectionLost("gone")
    monkeypatch.setattr(target.listener, "on_lost", lambda session, error: order.append(error))
    target.lose(error)
    assert len(order) == 2
    assert order[1] is error
    assert link.is_discarded
    assert target.connection.interest() == (None, False)
    target.tick(3)
    target.dial_ends(FakeLink())
    assert target.session.generation == 2


@pytest.mark.parametrize(("lived", "delay"), [(4.9, 0.2), (5.0, 0.1)])
def test_what_lived_for_a_moment_is_not_made_again_without_a_pause(target: Target, lived: float, delay: float) -> None:
    target.open()
    target.tick(lived)
    target.lose()
    assert target.tick() == pytest.approx(target.clock.now + delay)


def test_without_reconnect_a_loss_is_final(make: Make) -> None:
    target = make(reconnect=False)
    target.open()
    session = target.session
    target.reports()
    target.lose()
    (lost, failed) = target.reports()
    assert lost[:2] == ("lost", session)
    assert (failed[0], type(failed[1]), str(failed[1]), failed[2]) == ("failed", NotConnected, "gone", None)
    assert target.state is State.IDLE
    target.open()
    assert target.session is not session


def test_an_unexpected_error_is_logged_and_ends_the_session(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    target.open()
    target.lose(ZeroDivisionError("odd"))
    [*_, (_, _, error)] = target.reports()
    assert str(error) == "an unexpected error ended the connection: ZeroDivisionError('odd')"
    assert "test: unexpected error; the connection is made again" in caplog.text


def test_the_end_of_an_old_session_does_not_end_the_new_one(target: Target) -> None:
    target.open()
    old = target.session
    target.lose()
    target.tick(3)
    link = FakeLink()
    target.dial_ends(link)
    new = target.session
    target.reports()
    # An error of a write that was posted late; and a thread that found it silent, and was slow to say so.
    target.connection.post(lambda: target.connection.end(old, ConnectionLost("late")))
    old._state = type(old._state).INVALID
    old.invalidate(ConnectionLost("late"))
    target.tick()
    assert target.state is State.OPEN
    assert new.publish(MESSAGE) is True
    assert not link.is_discarded
    assert target.reports() == []


@pytest.mark.parametrize("reconnect", [True, False])
@pytest.mark.parametrize("raises", ["outcome", "lost", "failed"])
def test_an_error_of_the_listener_does_not_keep_the_rest_from_being_done(
    make: Make, reconnect: bool, raises: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = make(reconnect=reconnect)
    target.open(sends_requests=True)

    def outcome(error: TransportError | None) -> None:
        if raises == "outcome":
            raise SystemExit

    target.session.publish_confirmed(MESSAGE, outcome)
    target.listener.raises[raises] = SystemExit()
    target.reports()
    target.lose()
    assert [call[0] for call in target.reports()] == (["lost"] if reconnect else ["lost", "failed"])
    assert target.state is (State.WAITING if reconnect else State.IDLE)
    assert ("unexpected error" in caplog.text) is (raises != "failed" or not reconnect)


# -- invalidate: from any thread ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text", "at_once"),
    [
        (ConnectionLost("gone"), "gone", False),
        (KeyboardInterrupt(), "interrupted while a reply was read: KeyboardInterrupt()", True),
        (ValueError("odd"), "interrupted while a reply was read: ValueError('odd')", False),
    ],
)
def test_an_invalid_session_takes_nothing_and_is_ended_by_the_leader(
    target: Target, error: BaseException, text: str, at_once: bool
) -> None:
    link, session = target.open(), target.session
    target.reports()
    wakes = target.runtime.wakes
    target.connection.invalidate(error)
    assert target.runtime.wakes > wakes
    assert session.publish(MESSAGE) is False
    seen = [link.is_discarded, target.connection.is_due(target.clock.now)]
    target.tick()
    assert [*seen, link.is_discarded] == [False, True, True]
    assert [(call[0], str(call[2])) for call in target.reports()] == [("lost", text)]
    assert target.state is (State.DIALING if at_once else State.WAITING)


def test_without_a_session_there_is_nothing_to_invalidate(target: Target) -> None:
    target.start()
    target.connection.invalidate(KeyboardInterrupt())
    target.tick()
    assert target.state is State.DIALING


# -- closing --------------------------------------------------------------------------------------------------------


def test_what_is_queued_is_written_before_the_close(target: Target) -> None:
    link = target.open()
    target.session.publish(MESSAGE)
    close(target)
    assert link.written == [link.encoder.publish(link.publisher_channel, MESSAGE)]
    assert link.calls == [("begin_close", None)]
    link.callbacks["on_closed"]()
    assert target.connection.finished
    assert link.is_discarded
    assert [str(call[2]) for call in target.reports() if call[0] == "lost"] == ["the connection was closed"]


def test_a_close_of_the_broker_is_no_end_for_good(target: Target) -> None:
    link = target.open()
    link.callbacks["on_closed"]()
    assert target.state is State.OPEN  # the error that follows ends it


def test_a_close_without_a_reply_ends_by_its_timeout(target: Target) -> None:
    target.open()
    target.connection.close(1.0)
    assert target.tick() == target.clock.now + 1.0
    target.tick(1.0)
    assert target.connection.finished


def test_the_end_of_the_stream_ends_a_close(target: Target) -> None:
    link = target.open()
    close(target)
    link.incoming = [b""]
    with pytest.raises(ConnectionLost) as caught:
        target.connection.on_readable()
    target.connection.fail(caught.value)
    assert target.connection.finished


def test_close_waits_for_the_runtime(target: Target) -> None:
    target.open()
    target.connection.close(1.0)
    assert target.runtime.closes == [pytest.approx(1.2)]


def test_close_by_a_signal_handler_within_a_write_does_not_wait_for_itself(target: Target) -> None:
    link = target.open()
    link.on_write = lambda: target.connection.close(1.0)
    target.session.publish(MESSAGE)
    target.session.flush()
    assert target.runtime.closes == []
    link.on_write = lambda: None
    target.tick()
    assert target.state is State.CLOSING


def test_a_connection_that_was_never_started_just_ends(target: Target) -> None:
    target.connection.close(1.0)
    assert target.connection.finished
    assert target.runtime.closes == []
    target.connection.start(target.listener)
    assert target.runtime.starts == []


def test_in_a_forked_process_the_connection_of_the_parent_is_left_alone(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = target.open()
    monkeypatch.setattr("os.getpid", lambda: -1)
    target.connection.close(1.0)
    assert (link.calls, link.is_discarded, target.runtime.closes) == ([], False, [])


# -- what is watched, and when --------------------------------------------------------------------------------------


def test_it_watches_the_socket_and_for_room_while_there_is_none(target: Target) -> None:
    assert target.connection.interest() == (None, False)
    link = target.open()
    assert target.connection.interest() == (7, False)
    link.room = [1]
    target.session.publish(MESSAGE)
    target.tick()
    assert target.connection.interest() == (7, True)
    assert target.connection.is_due(target.clock.now)  # so that the leader looks
    target.connection.on_writable()
    assert target.connection.interest() == (7, False)
    assert link.stream == link.encoder.publish(link.publisher_channel, MESSAGE)
    link.sock.fd = -1
    assert target.connection.interest() == (None, False)


def test_room_to_write_is_reported_as_relief(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jsonrpc_amqp.amqp.outbox.CONGESTED_BYTES", 10)
    link = target.open()
    link.room = [1]
    target.session.put(b"x" * 20)
    target.tick()
    assert target.session.congested
    target.reports()
    target.connection.on_writable()
    assert target.reports() == [("congested", False)]


def test_without_a_session_nothing_is_read_or_written(target: Target) -> None:
    target.connection.on_readable()
    target.connection.on_writable()
    target.lose()
    assert target.state is State.IDLE


def test_it_ticks_when_the_first_of_its_deadlines_comes(target: Target) -> None:
    target.open()
    now = target.clock.now
    assert target.tick() == now + 5.0  # half a heartbeat
    target.listener.due = now + 1.0
    target.connection.wake()
    assert target.tick() == now + 1.0
    ticks = target.listener.ticks
    target.tick(0.9)
    assert target.listener.ticks == ticks
    target.tick(0.1)
    assert target.listener.ticks == ticks + 1


def test_a_wake_up_during_a_tick_is_for_the_next_one(target: Target) -> None:
    target.open()
    target.connection.post(target.connection.wake)
    target.tick()
    assert target.connection.is_due(target.clock.now)


def test_what_is_posted_by_what_is_posted_is_done_as_well(target: Target) -> None:
    target.open()
    done: list[int] = []
    target.connection.post(lambda: target.connection.post(lambda: done.append(1)))
    target.tick()
    assert done == [1]


def test_after_a_stall_a_connection_is_kept_that_the_broker_has_not_given_up(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    link = target.open()
    link.unread = True
    target.tick(25.0)
    assert target.state is State.OPEN
    assert link.stream == HEARTBEAT
    assert "test: this process or its I/O thread stood still for 20.0 s" in caplog.text
    target.tick(5.0)
    assert len(caplog.records) == 1


def test_a_queue_is_consumed_again_when_it_is_time_for_that(target: Target) -> None:
    link = target.open()
    link.callbacks["on_consumer_cancelled"]("tag-1")
    target.runtime.wakes = 0
    due = target.tick()
    assert due is not None
    assert target.clock.now < due <= target.clock.now + 0.1
    target.tick(due - target.clock.now)
    assert link.calls == [("redeclare", "queue")]
    assert target.state is State.OPEN


def test_a_heartbeat_is_written_by_the_tick(target: Target) -> None:
    link = target.open()
    target.tick(5.0)
    assert link.written == [b"\x08\0\0\0\0\0\0\xce"]


def test_during_a_burst_it_flushes_each_millisecond(target: Target) -> None:
    link = target.open()
    link.incoming = [deliver(b"1") + deliver(b"2", tag=2)]
    target.connection.on_readable()
    assert target.session.writes_soon
    target.session.publish(MESSAGE)
    assert target.tick() == target.clock.now + 0.001
    assert link.written == [link.encoder.publish(link.publisher_channel, MESSAGE)]
    target.tick(0.02)
    assert not target.session.writes_soon


def test_where_the_runtime_writes_behind_each_flush_asks_for_a_tick(target: Target) -> None:
    target.runtime.writes_behind = True
    link = target.open()
    link.incoming = [deliver(b"1") + deliver(b"2", tag=2)]
    target.connection.on_readable()
    assert not target.session.writes_soon  # so that all that is queued is flushed
    target.tick()
    wakes = target.runtime.wakes
    target.session.publish(MESSAGE)
    target.session.flush()
    target.session.publish(MESSAGE)
    target.session.flush()
    assert (target.runtime.wakes, link.written) == (wakes + 2, [])
    due = target.tick()
    assert link.written == [2 * link.encoder.publish(link.publisher_channel, MESSAGE)]
    assert due is not None
    assert due > target.clock.now + 1


def test_an_error_of_on_tick_ends_the_session_and_not_the_tick(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.open()

    def on_tick(now: float) -> float | None:
        raise SystemExit

    monkeypatch.setattr(target.listener, "on_tick", on_tick)
    assert target.tick(0.0) is not None
    target.connection.wake()
    target.tick()
    assert target.state is State.WAITING


# -- who may wait ---------------------------------------------------------------------------------------------------


def test_the_leader_and_the_thread_that_writes_must_not_wait(target: Target) -> None:
    seen = [target.connection.would_deadlock()]
    link = target.open()
    seen.append(target.connection.would_deadlock())
    link.on_write = lambda: seen.append(target.connection.would_deadlock())
    target.session.publish(MESSAGE)
    target.session.flush()
    target.runtime.is_leader = True
    seen.append(target.connection.would_deadlock())
    assert seen == [False, False, True, True]


def test_the_thread_that_connects_must_not_wait_while_it_does_so(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def dial(*_args: object) -> FakeLink:
        seen.append(target.connection.would_deadlock())
        thread = threading.Thread(target=lambda: seen.append(target.connection.would_deadlock()))
        thread.start()
        thread.join(PATIENCE)
        return FakeLink()

    monkeypatch.setattr(dialer, "dial", dial)
    target.start()
    target.runtime.blocking.pop(0)()
    seen.append(target.connection.would_deadlock())
    assert seen == [True, False, False]


def test_what_is_logged_while_it_connects_is_passed_on_when_others_can_use_the_connection(
    target: Target, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler may wait for a call, on the thread that connects or on another one that has the handler's lock."""
    seen: list[tuple[bool, int]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((target.connection.would_deadlock(), len(target.connection._posted)))

    def dial(*_args: object) -> FakeLink:
        logger.debug("Start from server")
        return FakeLink()

    logger, handler = logging.getLogger("amqp"), Handler()
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, "amqp"):
            monkeypatch.setattr(dialer, "dial", dial)
            target.start()
            target.runtime.blocking.pop(0)()
    finally:
        logger.removeHandler(handler)
    assert seen == [(False, 1)]


# -- URLs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("amqp://joe:secret@a", "joe"),
        ("amqp://a", "guest"),
        ("amqp://joe@a;amqp://joe@b", "joe"),
        ("amqp://joe@a;amqp://ann@b", None),
        ("amqps://joe@a?auth_mechanism=external", None),
        ("amqp://:token@a", None),
    ],
)
def test_the_user_is_known_where_all_urls_agree(make: Make, url: str, user: str | None) -> None:
    assert make(url).connection.user == user


def test_tls_options_that_would_not_be_used_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="amqps:// has"):
        make("amqp://a", tls={"ca_certs": "ca.pem"})


def test_a_session_is_what_the_seam_says(target: Target) -> None:
    target.open()
    session: Session = target.session
    assert session.reply_queue == "amq.gen-1"
