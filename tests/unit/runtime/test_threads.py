"""The threads runtime, with a fake connection on a socket pair: each test waits for events, and none for a time."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from jsonrpc_amqp.errors import ConnectionLost, NotConnected
from jsonrpc_amqp.runtime.leader_follower import State
from jsonrpc_amqp.runtime.polling import SelectPoll, Waker
from jsonrpc_amqp.runtime.threads import ThreadsRuntime

from ...exhausted import NoThread
from ...interrupts import InterruptAt, is_free
from ...tools import wait_for
from .fakes import PATIENCE, FakeConnection


class Jobs:
    """Inline jobs: those that were offloaded are written down."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], object]] = deque()
        self.offloaded: list[tuple[bool, int]] = []

    @property
    def has_inline_job(self) -> bool:
        return bool(self.waiting)

    def next_inline_job(self) -> Callable[[], object] | None:
        return self.waiting.popleft() if self.waiting else None

    def offload(self, *, late: bool) -> None:
        self.offloaded.append((late, len(self.waiting)))
        self.waiting.clear()

    def never_inline(self) -> None:
        raise AssertionError("this runtime runs some")


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def running(connection: FakeConnection, runtime: ThreadsRuntime) -> Iterator[ThreadsRuntime]:
    runtime.start(connection, name="driver")
    connection.wait_for(lambda: connection.ticks)
    yield runtime
    connection.finished = True
    runtime.wake()
    assert runtime.close(PATIENCE)


@pytest.fixture
def runtime(connection: FakeConnection, jobs: Jobs) -> Iterator[ThreadsRuntime]:
    runtime = ThreadsRuntime()
    runtime.set_inline_jobs(jobs)
    yield from running(connection, runtime)


def io_thread() -> threading.Thread:
    return next(thread for thread in threading.enumerate() if thread.name == "driver")


# -- the I/O thread -------------------------------------------------------------------------------------------


def test_what_arrives_is_read_by_the_io_thread(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    connection.far.send(b"x")
    connection.wait_for(lambda: connection.received == b"x")
    assert connection.readers == [io_thread().ident]


def test_room_is_watched_for_only_when_it_is_wanted(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    assert not connection.wrote.is_set()
    connection.wants_room = True
    runtime.wake()
    assert connection.wrote.wait(PATIENCE)


def test_tick_comes_when_it_is_due_and_when_it_is_woken(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    connection.due = time.monotonic() + 0.005
    before = connection.ticks
    runtime.wake()
    connection.wait_for(lambda: connection.ticks > before + 2)  # woken, and then at its time again and again
    connection.due = None
    runtime.wake()


@pytest.mark.parametrize("error", [ConnectionLost("gone"), SystemExit(), ValueError("a bug")])
def test_an_error_while_reading_ends_the_connection_and_not_the_thread(
    connection: FakeConnection, runtime: ThreadsRuntime, error: BaseException
) -> None:
    def fail(byte: int) -> None:
        raise error

    connection.on_read = fail
    connection.far.send(b"x")
    connection.wait_for(lambda: connection.errors == [error])
    connection.on_read = lambda byte: None
    connection.far.send(b"y")
    connection.wait_for(lambda: connection.received == b"xy")


def test_leader_would_deadlock_and_others_would_not(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    seen: list[bool] = []
    connection.on_read = lambda byte: seen.append(runtime.would_deadlock())
    connection.far.send(b"x")
    connection.wait_for(lambda: connection.received)
    runtime.wake()
    assert not runtime.would_deadlock()
    connection.wait_for(lambda: seen == [True])


def test_a_blocking_function_runs_beside_the_leader(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    ran: list[str] = []
    done = threading.Event()

    def block() -> None:
        ran.append(threading.current_thread().name)
        done.set()

    runtime.run_blocking(block, name="dial")
    assert done.wait(PATIENCE)
    assert ran == ["dial"]


def test_close_by_the_leader_does_not_wait_for_itself(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    closed: list[bool] = []
    connection.on_read = lambda byte: closed.append(runtime.close(PATIENCE))
    connection.far.send(b"x")
    connection.wait_for(lambda: connection.received)
    runtime.wake()
    connection.wait_for(lambda: closed == [False])


def test_close_by_a_caller_that_leads_does_not_wait_for_itself(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    closed: list[bool] = []
    reply.call_until_delegated()
    connection.on_read = lambda byte: closed.append(runtime.close(PATIENCE))
    reply.call()
    connection.wait_for(lambda: closed == [False])


def test_a_runtime_that_could_not_start_holds_no_descriptor(
    connection: FakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    runtime = ThreadsRuntime()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(NotConnected, match="new thread"):
            runtime.start(connection, name="driver")
    runtime.wake()
    assert len(os.listdir("/proc/self/fd")) == before
    for _ in running(connection, runtime):  # and may be started again
        connection.far.send(b"x")
        connection.wait_for(lambda: connection.received == b"x")


def test_close_gives_up_in_time(connection: FakeConnection, runtime: ThreadsRuntime) -> None:
    assert not runtime.close(0.001)


def test_a_runtime_that_was_not_started_holds_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    runtime = ThreadsRuntime()
    runtime.wake()
    runtime.reclaim()
    assert len(os.listdir("/proc/self/fd")) == before


def test_waker_is_awake_until_it_is_cleared() -> None:
    waker = Waker()
    assert not waker.wait(0)
    for _ in range(100_000):
        waker.wake()  # more than fit: none blocks
    assert waker.wait(PATIENCE)
    while waker.wait(0):
        waker.clear()
    waker.clear()
    waker.close()
    waker.wake()


# -- a caller drives ------------------------------------------------------------------------------------------


class Reply:
    """A reply that the peer sends after each request, and a caller waits for."""

    def __init__(self, connection: FakeConnection, runtime: ThreadsRuntime) -> None:
        self._connection = connection
        self._runtime = runtime

    def call(self) -> int:
        """Have one byte arrive, drive until it is here; return the thread that read it."""
        wanted = len(self._connection.received) + 1
        self._connection.far.send(b"x")
        self._runtime.drive_until(
            lambda: len(self._connection.received) >= wanted, deadline=time.monotonic() + PATIENCE
        )
        self._connection.wait_for(lambda: len(self._connection.received) >= wanted)
        return self._connection.readers[-1]

    def call_until_delegated(self) -> None:
        for _ in range(20_000):
            if self.call() == threading.get_ident():
                return
        raise AssertionError("it was never delegated")


@pytest.fixture
def reply(connection: FakeConnection, runtime: ThreadsRuntime) -> Reply:
    return Reply(connection, runtime)


def test_a_lone_caller_drives_after_some_calls(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    reply.call_until_delegated()
    assert io_thread().ident in connection.readers  # the first calls were not worth it


def test_io_thread_resumes_when_it_is_woken(connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply) -> None:
    reply.call_until_delegated()
    ticks = connection.ticks
    runtime.wake()
    connection.wait_for(lambda: connection.ticks > ticks)
    connection.far.send(b"y")
    connection.wait_for(lambda: connection.received.endswith(b"y"))
    assert connection.readers[-1] == io_thread().ident


def test_io_thread_resumes_when_it_is_reclaimed(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    reply.call_until_delegated()
    runtime.reclaim()
    connection.far.send(b"y")
    connection.wait_for(lambda: connection.received.endswith(b"y"))
    assert connection.readers[-1] == io_thread().ident


def test_another_caller_reclaims(connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply) -> None:
    reply.call_until_delegated()
    readers: list[int] = []
    other = threading.Thread(target=lambda: readers.append(reply.call()))
    other.start()
    other.join(PATIENCE)
    assert readers != [other.ident]


def test_close_by_a_caller_that_drives_does_not_wait_for_itself(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    """As a signal handler does that closes a client within a call."""
    reply.call_until_delegated()
    closed: list[tuple[int, bool]] = []
    me = threading.get_ident()

    def close(byte: int) -> None:
        if threading.get_ident() == me:
            closed.append((byte, runtime.close(PATIENCE)))

    connection.on_read = close
    began = time.monotonic()
    while not closed:
        reply.call_until_delegated()
    assert time.monotonic() - began < PATIENCE
    assert closed[0][1] is False


def test_nothing_is_delegated_while_something_is_due(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    connection.busy = True
    for _ in range(50):
        assert reply.call() == io_thread().ident


def test_nothing_is_delegated_where_that_is_switched_off(connection: FakeConnection) -> None:
    for runtime in running(connection, ThreadsRuntime(caller_drives=False)):
        reply = Reply(connection, runtime)
        for _ in range(50):
            assert reply.call() == io_thread().ident


def test_a_caller_stops_driving_once_it_has_something_to_do(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    reply.call_until_delegated()
    connection.busy = True
    reply.call()
    connection.busy = False
    connection.far.send(b"y")
    connection.wait_for(lambda: connection.received.endswith(b"y"))
    assert connection.readers[-1] == io_thread().ident


def test_an_interrupt_of_a_caller_that_drives_is_raised_there_and_invalidates_the_connection(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    """As a signal handler that raises: Python runs it on the main thread."""

    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        reply.call_until_delegated()
        connection.on_read = lambda byte: os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted):
            reply.call()
    finally:
        signal.signal(signal.SIGUSR1, before)
    connection.on_read = lambda byte: None
    assert [type(error) for error in connection.invalid] == [Interrupted]
    assert connection.errors == []
    assert not runtime.would_deadlock()
    assert reply.call() == io_thread().ident


def test_a_connection_that_a_caller_finds_lost_is_invalidated(
    connection: FakeConnection, runtime: ThreadsRuntime, reply: Reply
) -> None:
    def lose(byte: int) -> None:
        raise error

    error = ConnectionLost("gone")
    reply.call_until_delegated()
    connection.on_read = lose
    reply.call()
    connection.wait_for(lambda: connection.invalid == [error])
    assert connection.errors == []


# -- inline jobs ----------------------------------------------------------------------------------------------


def test_jobs_run_on_the_leader(connection: FakeConnection, runtime: ThreadsRuntime, jobs: Jobs) -> None:
    ran: list[int] = []
    done = threading.Event()
    jobs.waiting.extend([lambda: ran.append(threading.get_ident()), done.set])
    runtime.wake()
    assert done.wait(PATIENCE)
    assert ran == [io_thread().ident]
    assert jobs.offloaded == []


def test_jobs_are_offloaded_where_that_is_switched_off(connection: FakeConnection, jobs: Jobs) -> None:
    runtime = ThreadsRuntime(inline_jobs=False)
    runtime.set_inline_jobs(jobs)
    for _ in running(connection, runtime):
        jobs.waiting.append(lambda: None)
        runtime.wake()
        connection.wait_for(lambda: not jobs.waiting)
        assert jobs.offloaded == [(False, 1)]


def test_follower_takes_over_from_a_job_that_blocks(
    connection: FakeConnection, runtime: ThreadsRuntime, jobs: Jobs
) -> None:
    begun, release = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert release.wait(PATIENCE)

    jobs.waiting.extend([block, lambda: None])
    runtime.wake()
    assert begun.wait(PATIENCE)
    connection.far.send(b"x")  # the follower reads it
    connection.wait_for(lambda: connection.received == b"x")
    assert connection.readers != [io_thread().ident]
    assert jobs.offloaded == [(True, 1)]

    # Both are held up: there is no follower, so the new leader offloads.
    jobs.waiting.append(lambda: None)
    runtime.wake()
    connection.wait_for(lambda: not jobs.waiting)
    assert jobs.offloaded[1:] == [(False, 1)]

    # The first thread follows once its job has ended, and jobs run on the leader again.
    release.set()
    leaders: list[int] = []
    done = threading.Event()
    while not done.is_set():
        jobs.waiting.extend([lambda: leaders.append(threading.get_ident()), done.set])
        runtime.wake()
        connection.wait_for(lambda: not jobs.waiting)
    assert leaders[0] == connection.readers[0]
    assert runtime._leadership.state is not State.DELEGATED


def test_a_job_that_raises_invalidates_the_connection(
    connection: FakeConnection, runtime: ThreadsRuntime, jobs: Jobs
) -> None:
    def fail() -> None:
        raise error

    error = SystemExit()
    jobs.waiting.append(fail)
    runtime.wake()
    connection.wait_for(lambda: connection.invalid == [error])
    connection.far.send(b"x")
    connection.wait_for(lambda: connection.received == b"x")


def test_without_a_thread_for_a_follower_jobs_are_offloaded_until_there_is_one(
    connection: FakeConnection, runtime: ThreadsRuntime, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        NoThread(patch)
        jobs.waiting.append(lambda: None)
        runtime.wake()
        connection.wait_for(lambda: not jobs.waiting)
    assert jobs.offloaded == [(False, 1)]
    done = threading.Event()
    jobs.waiting.append(done.set)
    runtime.wake()
    assert done.wait(PATIENCE)
    assert jobs.offloaded == [(False, 1)]


def test_without_a_thread_nothing_that_blocks_is_run(runtime: ThreadsRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        NoThread(patch)
        with pytest.raises(NotConnected, match="ulimit"):
            runtime.run_blocking(lambda: None, name="dial")


# -- the leader goes on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["tick", "on_writable"])
def test_an_error_of_a_step_ends_the_connection_and_not_the_thread(
    connection: FakeConnection, runtime: ThreadsRuntime, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    error = MemoryError()

    def fail(*_args: object) -> None:
        connection.wants_room = False
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(connection, step, fail)
    connection.wants_room = True
    runtime.wake()
    connection.wait_for(lambda: connection.errors == [error])
    connection.far.send(b"x")
    connection.wait_for(lambda: connection.received == b"x")


def test_a_descriptor_that_cannot_be_watched_ends_the_connection(
    connection: FakeConnection, runtime: ThreadsRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(SelectPoll):
        def register(self, fd: int, events: int, /) -> None:
            raise OSError("too high for select()")

    poll = runtime._poll
    runtime._poll = Full()
    connection.wants_room = True
    runtime.wake()
    connection.wait_for(lambda: connection.errors)
    runtime._poll = poll
    assert isinstance(connection.errors[0], ConnectionLost)


def test_it_drives_without_poll(connection: FakeConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    for runtime in running(connection, ThreadsRuntime()):
        reply = Reply(connection, runtime)
        reply.call_until_delegated()
        connection.wants_room = True
        runtime.wake()
        assert connection.wrote.wait(PATIENCE)


# -- an interrupt at any moment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("leads", {"drive_until", "step", "_step"}),
        ("stops leading", {"step", "_step", "reclaim", "_wake"}),
        ("requests it", {"drive_until", "request"}),
    ],
    ids=lambda way: way.replace(" ", "-") if isinstance(way, str) else "",
)
def test_an_interrupt_of_a_caller_at_any_moment_leaves_no_mark(
    connection: FakeConnection,
    runtime: ThreadsRuntime,
    reply: Reply,
    way: str,
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception is raised wherever Python runs signal handlers, in the first such place, the second, and so on."""
    ours = ("runtime/threads.py", "runtime/leader_follower.py", "runtime/polling.py")

    def received(count: int) -> bool:
        return len(connection.received) == count

    leadership, places = runtime._leadership, set[str]()
    monkeypatch.setattr(runtime._delegation, "deserves", lambda _caller: True)
    number = misses = 0
    while misses < 3:  # a call takes a shorter way now and then
        reply.call_until_delegated()
        if way == "stops leading":
            connection.busy = True
        elif way == "requests it":
            runtime.reclaim()
            wait_for(lambda: leadership.state is State.LEADING)
        before = len(connection.received)
        interrupt = InterruptAt(number, lambda code: code.co_filename.endswith(ours))
        with suppress(KeyboardInterrupt), interrupt:
            reply.call()
        connection.busy = False
        places.add(interrupt.where.split(":")[0])
        assert not runtime.would_deadlock(), interrupt.where
        assert is_free(leadership._step), interrupt.where
        assert is_free(leadership._lock), interrupt.where
        wait_for(partial(received, before + 1))
        reply.call()
        misses = 0 if interrupt.was_raised else misses + 1
        number += interrupt.was_raised
    assert expected <= {place.split(".")[-1] for place in places}
