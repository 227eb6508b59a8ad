"""The asyncio runtime, with a fake connection on a socket pair, on asyncio's own loop and on uvloop's."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from jsonrpc_amqp.errors import NotConnected, WrongEventLoop
from jsonrpc_amqp.runtime.asyncio import AsyncioRuntime

from ...exhausted import NoThread
from .fakes import PATIENCE, FakeConnection

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def begin(connection: FakeConnection) -> AsyncioRuntime:
    """Return a runtime that drives the connection on the running loop."""
    runtime = AsyncioRuntime()
    runtime.start(connection, "test")
    runtime.wake()
    return runtime


async def finish(runtime: AsyncioRuntime, connection: FakeConnection) -> None:
    connection.finished = True
    runtime.wake()
    assert await runtime.wait_closed(PATIENCE)


# -- what it calls ------------------------------------------------------------------------------------------------


def test_it_reads_and_writes_on_the_thread_of_the_loop(connection: FakeConnection, run: Run) -> None:
    async def use() -> None:
        runtime = begin(connection)
        await until(lambda: connection.ticks)
        connection.far.send(b"abc")
        await until(lambda: connection.received == b"abc")
        assert set(connection.readers) == {threading.get_ident()}
        assert not connection.wrote.is_set()
        connection.wants_room = True
        runtime.wake()
        await until(connection.wrote.is_set)
        await finish(runtime, connection)
        connection.far.send(b"d")  # it is watched no more
        await asyncio.sleep(0.01)
        assert connection.received == b"abc"

    run(use())


def test_a_tick_follows_what_the_tasks_do_that_a_read_wakes(connection: FakeConnection, run: Run) -> None:
    order: list[str] = []

    async def use() -> None:
        runtime = begin(connection)
        await until(lambda: connection.ticks)
        woken = asyncio.get_running_loop().create_future()
        connection.on_read = lambda _byte: woken.set_result(None)
        ticks = connection.ticks

        async def task() -> None:
            await woken
            order.append("task" if connection.ticks == ticks else "too late")

        waiting = asyncio.create_task(task())
        await asyncio.sleep(0)
        connection.far.send(b"a")
        await waiting
        await until(lambda: connection.ticks > ticks)
        await finish(runtime, connection)

    run(use())
    assert order == ["task"]


def test_it_calls_again_when_something_is_due(connection: FakeConnection, run: Run) -> None:
    async def use() -> None:
        connection.due = time.monotonic() + 0.01
        runtime = begin(connection)
        await until(lambda: connection.ticks >= 1)
        connection.due, ticks = None, connection.ticks
        await until(lambda: connection.ticks > ticks)
        await finish(runtime, connection)

    run(use())


def test_what_is_due_earlier_than_was_said(connection: FakeConnection, run: Run) -> None:
    async def use() -> None:
        connection.due = time.monotonic() + 1000
        runtime = begin(connection)
        await until(lambda: connection.ticks)
        connection.due = time.monotonic() + 0.01
        runtime.wake()
        ticks = connection.ticks
        await until(lambda: connection.ticks >= ticks + 2)
        await finish(runtime, connection)

    run(use())


def test_another_thread_and_a_signal_handler_wake_it(connection: FakeConnection, run: Run) -> None:
    async def use() -> None:
        runtime = begin(connection)
        await until(lambda: connection.ticks)
        ticks = connection.ticks
        await asyncio.to_thread(runtime.wake)
        await until(lambda: connection.ticks > ticks)
        ticks = connection.ticks
        before = signal.signal(signal.SIGALRM, lambda *_: runtime.wake())
        try:
            done = asyncio.Event()
            connection.due = None
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            connection.on_tick = done.set
            await asyncio.wait_for(done.wait(), PATIENCE)  # with nothing else that would wake the loop
        finally:
            signal.signal(signal.SIGALRM, before)
        await finish(runtime, connection)

    run(use())


def test_an_error_of_an_event_ends_the_connection_and_not_the_loop(connection: FakeConnection, run: Run) -> None:
    async def use() -> None:
        runtime = begin(connection)
        connection.on_read = lambda _byte: 1 / 0
        connection.far.send(b"a")
        await until(lambda: connection.errors)
        assert isinstance(connection.errors[0], ZeroDivisionError)
        await finish(runtime, connection)

    run(use())


def test_an_interrupt_in_an_event_ends_both(connection: FakeConnection) -> None:
    def interrupt(_byte: int) -> None:
        raise KeyboardInterrupt

    async def use() -> None:
        begin(connection)
        connection.on_read = interrupt
        connection.far.send(b"a")
        await until(lambda: False)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(use())
    assert [type(error) for error in connection.errors] == [KeyboardInterrupt]


def test_a_log_handler_that_raises_does_not_break_a_step_off(connection: FakeConnection, run: Run) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError("the handler")

    logger = logging.getLogger("jsonrpc_amqp.transport")
    steps: list[str] = []

    def read(_byte: int) -> None:
        logger.warning("a line")
        steps.append("behind the line")

    async def use() -> None:
        runtime = begin(connection)
        connection.on_read = read
        connection.far.send(b"a")
        await until(lambda: steps)
        await finish(runtime, connection)

    handler = Broken()
    logger.addHandler(handler)
    try:
        run(use())
    finally:
        logger.removeHandler(handler)
    assert (steps, connection.errors) == (["behind the line"], [])


# -- sockets ----------------------------------------------------------------------------------------------------------


def test_a_number_of_a_socket_can_be_used_again(connection: FakeConnection, run: Run) -> None:
    """The loop must not know a descriptor that was closed: another socket may get its number at once."""

    async def use() -> None:
        runtime = begin(connection)
        await until(lambda: connection.ticks)
        connection.far.send(b"a")
        await until(lambda: connection.received)
        runtime.unwatch()
        loop, fd, read = asyncio.get_running_loop(), connection.near.fileno(), asyncio.Event()
        loop.add_reader(fd, read.set)
        connection.far.send(b"b")
        await asyncio.wait_for(read.wait(), PATIENCE)
        loop.remove_reader(fd)
        assert connection.received == b"a"
        await finish(runtime, connection)

    run(use())


# -- its loop ----------------------------------------------------------------------------------------------------------


def test_it_belongs_to_one_loop(connection: FakeConnection) -> None:
    runtime = AsyncioRuntime()
    with pytest.raises(WrongEventLoop, match="none runs on this thread"):
        runtime.attach()

    async def use() -> None:
        runtime.attach()
        runtime.attach()
        assert runtime.would_deadlock()
        assert not await asyncio.to_thread(runtime.would_deadlock)

    async def other() -> None:
        runtime.attach()

    asyncio.run(use())
    assert runtime.is_stranded
    with pytest.raises(WrongEventLoop, match="was closed"):
        asyncio.run(other())


@pytest.mark.parametrize("when", ["wake", "attach"])
def test_a_loop_that_was_closed_leaves_the_connection(connection: FakeConnection, run: Run, when: str) -> None:
    async def use() -> AsyncioRuntime:
        runtime = begin(connection)
        await until(lambda: connection.ticks)
        runtime.wake()  # its turn never comes
        return runtime

    async def attach() -> None:
        runtime.attach()

    runtime = run(use())
    assert not connection.was_abandoned
    if when == "wake":
        runtime.wake()
    else:
        with pytest.raises(WrongEventLoop):
            run(attach())
    assert connection.was_abandoned


def test_closing_waits_no_longer_than_it_is_told(connection: FakeConnection, run: Run) -> None:
    async def use() -> None:
        assert await AsyncioRuntime().wait_closed(0)  # never started
        runtime = begin(connection)
        assert not await runtime.wait_closed(0.01)
        assert not runtime.close(0)
        await finish(runtime, connection)
        assert runtime.close(0)

    run(use())


def test_there_can_be_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    NoThread(monkeypatch)
    with pytest.raises(NotConnected, match="cannot have another thread"):
        AsyncioRuntime().run_blocking(lambda: None, "dial")
