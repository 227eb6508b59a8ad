"""Leadership passes between threads as its states say. Each test plays all threads; none waits for time to pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from jsonrpc_amqp.runtime.leader_follower import DelegationPolicy, FollowerWatch, Leadership, State

from ...interrupts import InterruptedLock

T = TypeVar("T")
PATIENCE = 10.0


class Wakes:
    """Counts the wake-ups of the I/O thread, and waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self._came = threading.Semaphore(0)

    def __call__(self) -> None:
        self.count += 1
        self._came.release()

    def wait(self) -> None:
        assert self._came.acquire(timeout=PATIENCE)


def elsewhere(function: Callable[[], T]) -> T:
    """Run a function on another thread, to its end."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(PATIENCE)
    return results[0]


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


@pytest.fixture
def leadership(wakes: Wakes) -> Leadership:
    return Leadership(wakes)


class Caller:
    """A caller's thread: requests leadership, and makes a step for each ``go``."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self.delegated: list[bool] = []
        self.requested = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.delegated.append(self._leadership.request(PATIENCE))
        self.requested.set()

    def join(self) -> bool:
        """Return whether leadership was delegated to it."""
        self._thread.join(PATIENCE)
        return self.delegated[0]

    @property
    def ident(self) -> int | None:
        return self._thread.ident


def test_first_thread_leads(leadership: Leadership) -> None:
    leaders = [leadership.io_thread]
    leadership.lead()
    leaders.append(leadership.io_thread)
    assert leaders == [None, threading.get_ident()]
    assert leadership.leads_here()
    assert leadership.state is State.LEADING


# -- inline jobs ----------------------------------------------------------------------------------------------


def test_leader_that_ends_its_job_leads_on(leadership: Leadership) -> None:
    leadership.lead()
    leadership.begin_job()
    assert leadership.state is State.INLINE
    assert leadership.end_job()
    assert (leadership.state, leadership.io_thread) == (State.LEADING, threading.get_ident())


def test_follower_takes_over_from_a_leader_in_a_job(leadership: Leadership) -> None:
    leadership.lead()
    leadership.has_follower = True
    leadership.begin_job()

    follower = elsewhere(lambda: threading.get_ident() if leadership.take_over(1) else None)

    assert follower is not None
    assert (leadership.state, leadership.io_thread, leadership.has_follower) == (State.LEADING, follower, False)
    assert not leadership.end_job()
    assert leadership.io_thread == follower


@pytest.mark.parametrize("job", [0, 2])
def test_follower_does_not_take_over_from_another_job_than_it_saw(leadership: Leadership, job: int) -> None:
    leadership.lead()
    leadership.begin_job()
    assert not elsewhere(lambda: leadership.take_over(job))
    assert leadership.end_job()


def test_follower_does_not_take_over_between_jobs(leadership: Leadership) -> None:
    leadership.lead()
    leadership.begin_job()
    leadership.end_job()
    assert not elsewhere(lambda: leadership.take_over(1))


def test_watch_takes_over_at_the_second_look_into_the_same_job(leadership: Leadership) -> None:
    leadership.lead()
    watch = FollowerWatch(leadership)
    leadership.begin_job()
    assert not watch.look()
    leadership.end_job()
    leadership.begin_job()
    assert not watch.look()  # another job
    assert elsewhere(watch.look)


def test_watch_is_idle_after_some_looks_without_a_job(leadership: Leadership) -> None:
    leadership.lead()
    watch = FollowerWatch(leadership)
    looks = 0
    while not watch.is_idle:
        assert not watch.look()
        looks += 1
    assert looks == FollowerWatch.IDLE_LOOKS + 1
    assert not watch.missed_a_job
    leadership.begin_job()
    assert watch.missed_a_job


# -- delegation -----------------------------------------------------------------------------------------------


def delegate(leadership: Leadership, wakes: Wakes) -> Caller:
    leadership.lead()
    caller = Caller(leadership)
    wakes.wait()
    assert leadership.state is State.REQUESTED
    assert leadership.grant(is_possible=True)
    assert caller.join()
    return caller


def test_request_is_granted(leadership: Leadership, wakes: Wakes) -> None:
    caller = delegate(leadership, wakes)
    assert (leadership.state, leadership.caller, leadership.steps) == (State.DELEGATED, caller.ident, 0)
    assert leadership.io_thread == threading.get_ident()  # the caller leads during its steps only


def test_request_is_declined_where_there_is_something_to_do(leadership: Leadership, wakes: Wakes) -> None:
    leadership.lead()
    caller = Caller(leadership)
    wakes.wait()
    assert not leadership.grant(is_possible=False)
    assert not caller.join()
    assert (leadership.state, leadership.caller) == (State.LEADING, None)


def test_request_is_withdrawn_where_the_io_thread_does_not_answer(leadership: Leadership) -> None:
    assert not leadership.request(0.001)
    assert (leadership.state, leadership.caller) == (State.LEADING, None)
    assert not leadership.grant(is_possible=True)


def test_request_is_refused_while_a_job_runs_or_another_caller_leads(leadership: Leadership, wakes: Wakes) -> None:
    leadership.lead()
    leadership.begin_job()
    assert not elsewhere(lambda: leadership.request(PATIENCE))
    leadership.end_job()
    delegate(leadership, wakes)
    assert not elsewhere(lambda: leadership.request(PATIENCE))


def test_caller_leads_during_a_step(leadership: Leadership) -> None:
    leads: list[bool] = []

    def drive(is_readable: bool) -> bool:
        leads.append(leadership.leads_here())
        leads.append(elsewhere(leadership.leads_here))
        return is_readable

    leadership.state = State.DELEGATED
    leadership.caller = threading.get_ident()
    leadership.step(drive, True)
    assert leads == [True, False]
    assert not leadership.leads_here()
    assert (leadership.steps, leadership.state) == (1, State.DELEGATED)
    leadership.step(drive, False)
    assert (leadership.steps, leadership.state) == (2, State.RECLAIMED)
    leadership.step(drive, True)  # not any more
    assert leadership.steps == 2


def test_a_step_that_comes_too_late_leaves_that_of_another_caller_alone(leadership: Leadership) -> None:
    leads: list[bool] = []

    def drive(is_readable: bool) -> bool:
        late = threading.Thread(target=lambda: leadership.step(lambda _: True, True))
        late.start()
        late.join(PATIENCE)
        leads.append(leadership.leads_here())
        return True

    leadership.state = State.DELEGATED
    leadership.caller = threading.get_ident()
    leadership.step(drive, True)
    assert leads == [True]
    assert leadership.steps == 1


def test_a_request_by_a_signal_handler_within_a_request_does_not_confuse_it(
    leadership: Leadership, wakes: Wakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_ident = threading.get_ident

    def interrupted() -> int:
        monkeypatch.setattr(threading, "get_ident", get_ident)
        assert not leadership.request(0.001)
        return get_ident()

    leadership.lead()
    granted: list[bool] = []

    def call() -> None:
        monkeypatch.setattr(threading, "get_ident", interrupted)
        granted.append(leadership.request(PATIENCE))

    caller = threading.Thread(target=call)
    caller.start()
    for _ in range(3):  # the request of the handler, its end, and the request of the caller
        wakes.wait()
    assert leadership.grant(is_possible=True)
    caller.join(PATIENCE)
    assert granted == [True]


def test_a_job_withdraws_a_request(leadership: Leadership, wakes: Wakes) -> None:
    leadership.lead()
    caller = Caller(leadership)
    wakes.wait()
    leadership.begin_job()
    assert not caller.join()
    assert (leadership.state, leadership.caller) == (State.INLINE, None)


def test_an_exception_in_a_step_ends_the_delegation_and_leaves_no_mark(leadership: Leadership, wakes: Wakes) -> None:
    def drive(is_readable: bool) -> bool:
        raise KeyboardInterrupt

    leadership.state = State.DELEGATED
    leadership.caller = threading.get_ident()
    with pytest.raises(KeyboardInterrupt):
        leadership.step(drive, True)
    assert (leadership.state, leadership.leads_here(), wakes.count) == (State.RECLAIMED, False, 1)


def test_an_exception_as_soon_as_a_step_has_its_lock_does_not_keep_it(
    leadership: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a signal handler: Python 3.14 may run one between taking a lock and entering the block of ``with``."""
    leadership.state = State.DELEGATED
    leadership.caller = threading.get_ident()
    lock = leadership._step
    monkeypatch.setattr(leadership, "_step", InterruptedLock(lock))
    with pytest.raises(KeyboardInterrupt):
        leadership.step(lambda _is_readable: True, True)
    monkeypatch.undo()
    states = [leadership.state]
    assert not leadership.leads_here()
    elsewhere(leadership.resume)
    assert [*states, leadership.state] == [State.RECLAIMED, State.LEADING]


def test_a_thread_that_has_the_identifier_of_one_that_led_does_not_lead(leadership: Leadership) -> None:
    leadership.lead()
    leadership.end()
    assert not leadership.leads_here()


def test_reclaim_wakes_the_io_thread_once(leadership: Leadership, wakes: Wakes) -> None:
    assert not leadership.reclaim()
    delegate(leadership, wakes)
    before = wakes.count
    assert leadership.reclaim()
    assert not leadership.reclaim()
    assert (leadership.state, wakes.count - before) == (State.RECLAIMED, 1)
    leadership.resume()
    assert (leadership.state, leadership.caller) == (State.LEADING, None)


def test_reclaim_withdraws_a_request(leadership: Leadership, wakes: Wakes) -> None:
    leadership.lead()
    caller = Caller(leadership)
    wakes.wait()
    assert leadership.reclaim()
    assert not caller.join()
    assert (leadership.state, leadership.caller) == (State.LEADING, None)


def test_reclaim_within_a_step_does_not_wait_for_its_end(leadership: Leadership) -> None:
    """As a signal handler does, or a callback that submits a call."""
    leadership.state = State.DELEGATED
    leadership.caller = threading.get_ident()
    reclaimed: list[bool] = []

    def drive(is_readable: bool) -> bool:
        reclaimed.append(leadership.reclaim())
        return True

    leadership.step(drive, True)
    assert reclaimed == [True]
    assert leadership.state is State.RECLAIMED


def test_resume_waits_for_the_end_of_a_step(leadership: Leadership) -> None:
    entered, leave = threading.Event(), threading.Event()

    def drive(is_readable: bool) -> bool:
        entered.set()
        return leave.wait(PATIENCE)

    def act() -> None:
        leadership.state = State.DELEGATED
        leadership.caller = threading.get_ident()
        leadership.step(drive, True)

    caller = threading.Thread(target=act)
    caller.start()
    assert entered.wait(PATIENCE)
    io_thread = threading.Thread(target=leadership.resume)
    io_thread.start()
    assert leadership.state is State.DELEGATED
    leave.set()
    io_thread.join(PATIENCE)
    caller.join(PATIENCE)
    assert (leadership.state, leadership.caller) == (State.LEADING, None)


# -- which caller is worth it ---------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def calls_until_worth_it(policy: DelegationPolicy, clock: Clock, caller: int = 1, seconds: float = 0.001) -> int:
    for count in range(1, 1000):
        clock.now += seconds
        if policy.deserves(caller):
            return count
    return 0


def test_a_thread_that_calls_in_quick_succession_is_worth_it() -> None:
    clock = Clock()
    policy = DelegationPolicy(clock)
    assert calls_until_worth_it(policy, clock) == DelegationPolicy.CALLS + 1


def test_a_thread_that_pauses_is_not() -> None:
    clock = Clock()
    assert calls_until_worth_it(DelegationPolicy(clock), clock, seconds=0.01) == 0


def test_two_threads_that_take_turns_are_not() -> None:
    clock = Clock()
    policy = DelegationPolicy(clock)
    for number in range(100):
        clock.now += 0.0001
        assert not policy.deserves(number % 2)


def test_a_delegation_that_ended_early_takes_twice_as_many_calls_up_to_a_limit() -> None:
    clock = Clock()
    policy = DelegationPolicy(clock)
    calls_until_worth_it(policy, clock)
    counts = []
    for _ in range(8):
        policy.note_end(DelegationPolicy.ENOUGH_STEPS - 1)
        counts.append(calls_until_worth_it(policy, clock))
    assert counts == [8, 16, 32, 64, 128, 256, 256, 256]
    policy.note_end(DelegationPolicy.ENOUGH_STEPS)
    assert calls_until_worth_it(policy, clock) == DelegationPolicy.CALLS
