"""What only ``AsyncClient`` does: event loops, tasks and their cancellation. The rest: ``pytest --client=asyncio``."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import threading
import time
import weakref
from collections import UserDict
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from jsonrpc_amqp import (
    AsyncClient,
    CallTimeout,
    Client,
    ClientClosed,
    EncodeError,
    MethodNotFound,
    NotConnected,
    Server,
    TooManyPending,
    WrongEventLoop,
)
from tests.broker import free_ports
from tests.tools import wait_for

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return the URL of a broker."""
    return f"memory://{service}" if request.param == "memory" else request.getfixturevalue("url")


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def served(place: str, service: str, gate: threading.Event) -> Iterator[str]:
    """Serve methods at ``place``; return the URL."""
    methods: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "link": lambda **self: self,
        "wait": lambda: gate.wait(60),
        "nap": time.sleep,
    }
    with Server(place, service, methods=methods, concurrency=4):
        yield place
        gate.set()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def client_threads() -> list[str]:
    """Return the names of threads that clients started."""
    return [thread.name for thread in threading.enumerate() if "client" in thread.name]


def drop(clients: list[AsyncClient]) -> None:
    """Let go of the last reference to a client."""
    clients.clear()
    gc.collect()


# -- the forms of a call ------------------------------------------------------------------------------------------


def test_every_form(served: str, service: str, run: Run) -> None:
    async def use() -> None:
        async with AsyncClient(served, service, timeout=30) as client:
            assert await client.call("add", [1, 2]) == 3
            assert await client.call("add", {"a": 1, "b": 2}) == 3
            assert await client.proxy.add(3, 4) == 7
            assert await client.proxy.link(self="/a", params=1) == {"self": "/a", "params": 1}
            assert await client.call("add", range(1, 3)) == await client.call("add", UserDict(a=1, b=2)) == 3
            with pytest.raises(TypeError, match="not str; put a single value in a list"):
                await client.call("add", "12")  # type: ignore[arg-type]  # the refusal is tested
            with pytest.raises(EncodeError, match=r"^params\.a\[0\]: JSON has no form for complex$"):
                await client.call("add", {"a": [1j]})
            assert repr(client.proxy.add) == f"<Proxy 'add' of service {service!r}>"
            assert await client.submit("add", [5, 6]) == 11
            assert await client.with_options(timeout=20).call("add", [7, 8]) == 15
            await client.notify("add", [1, 2])
            await client.submit_notify("add", [1, 2])
            async with client.batch() as batch:
                three, none = batch.call("add", [1, 2]), batch.call("absent")
                batch.notify("add", [1, 2])
            assert await three == 3
            with pytest.raises(MethodNotFound):
                await none
            ok: Any = await client.send({"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": "x"})
            assert (ok.result, ok.id) == (3, "x")
            raw = b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 9}'
            assert b'"result":3' in (await client.send_raw(raw) or b"")
            assert b'"result":3' in (await client.submit_raw(raw) or b"")
            assert await client.send_raw(b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2]}') is None
            assert client.stats()["pending"] == 0

    run(use())


def test_thousands_in_flight(served: str, service: str, run: Run) -> None:
    async def use() -> None:
        async with AsyncClient(served, service, timeout=60) as client:
            results = await asyncio.gather(*(client.call("add", [number, 1]) for number in range(5000)))
            assert results == list(range(1, 5001))

    run(use())


def test_it_has_no_thread_but_to_connect(served: str, service: str, run: Run) -> None:
    async def use() -> None:
        async with AsyncClient(served, service, timeout=30) as client:
            await client.call("add", [1, 2])
            while client_threads():  # the one that connected is about to end
                await asyncio.sleep(0.01)

    run(use())


def test_the_batch_is_sent_when_its_block_ends(served: str, service: str) -> None:
    async def use() -> None:
        async with AsyncClient(served, service, timeout=30) as client:
            with pytest.raises(RuntimeError, match="async with"):
                async with client.batch() as batch:
                    await batch.call("add", [1, 2])
            with pytest.raises(RuntimeError, match="async with"):
                batch.call("add", [1, 2])

    asyncio.run(use())


# -- the end of a call before its reply ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["task", "timeout", "future", "batch"])
def test_a_cancelled_call_gives_its_place_back_at_once(
    served: str, service: str, gate: threading.Event, run: Run, how: str
) -> None:
    async def use() -> None:
        async with AsyncClient(served, service, timeout=60, max_pending=1) as client:
            if how == "task":
                task = asyncio.create_task(client.call("wait"))
                await asyncio.sleep(0)
                with pytest.raises(TooManyPending):
                    client.submit("add", [1, 2])
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            elif how == "timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await client.call("wait")
            elif how == "future":
                future = client.submit("wait")
                assert future.cancel()
                assert not future.cancel()
            else:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), client.batch() as batch:
                        member = batch.call("wait")
                assert member.cancelled() or member.exception() is not None
            assert client.stats()["pending"] == 0
            assert client.stats()["cancelled"] == 1
            gate.set()
            assert await client.call("add", [1, 2]) == 3
            # The reply that comes late is dropped, and counted.
            while client.stats()["dropped_replies"] < 1:
                await asyncio.sleep(0.01)

    run(use())


def test_ten_thousand_cancelled_calls_leave_nothing(served: str, service: str, gate: threading.Event, run: Run) -> None:
    async def use() -> tuple[dict[str, int], int, list[str]]:
        async with AsyncClient(served, service, timeout=60) as client:

            async def timed() -> None:
                async with asyncio.timeout(0.01):
                    await client.call("wait")

            await client.call("add", [1, 2])
            while client_threads():  # the one that connected is about to end
                await asyncio.sleep(0.01)
            before, threads = descriptors(), threading.enumerate()
            for _ in range(10):
                tasks = [asyncio.create_task(client.call("wait")) for _ in range(250)]
                futures = [client.submit("wait") for _ in range(250)]
                waited = [asyncio.create_task(asyncio.wait_for(client.call("wait"), 0.01)) for _ in range(250)]
                blocks = [asyncio.create_task(timed()) for _ in range(250)]
                await asyncio.sleep(0)
                for each in [*tasks, *futures]:
                    each.cancel()
                ends = await asyncio.gather(*tasks, *futures, *waited, *blocks, return_exceptions=True)
                assert [type(end) for end in ends] == 500 * [asyncio.CancelledError] + 500 * [TimeoutError]
            stats = client.stats()
            assert len(asyncio.all_tasks()) == 1
            assert client._requests._sender._parked == {}
            assert len(client._requests._pending._alarms) < 5000
            more_threads = [thread.name for thread in threading.enumerate() if thread not in threads]
            gate.set()
            return stats, descriptors() - before, more_threads

    stats, more_descriptors, more_threads = run(use())
    assert (stats["pending"], stats["cancelled"]) == (0, 10_000)
    assert more_descriptors == 0
    assert more_threads == client_threads() == []


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_wait_for_on_a_client_of_threads_leaves_nothing(
    served: str, service: str, gate: threading.Event, run: Run, seconds: float
) -> None:
    """A ``wait_for`` of no seconds cancels at once, another one while the call is in flight."""

    async def use(client: Client) -> tuple[int, list[str]]:
        await asyncio.wrap_future(client.submit("add", [1, 2]))
        before, threads = descriptors(), threading.enumerate()
        for _ in range(1000):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(client.submit("wait")), seconds)
            # The future of the client is cancelled by a callback of the other one.
            assert client.stats()["pending"] <= 1
        await asyncio.sleep(0)
        assert client.stats()["pending"] == 0
        assert len(asyncio.all_tasks()) == 1
        return descriptors() - before, [thread.name for thread in threading.enumerate() if thread not in threads]

    with Client(served, service, timeout=60) as client:
        more_descriptors, more_threads = run(use(client))
        assert (more_descriptors, more_threads) == (0, [])
        assert client.stats()["cancelled"] == 1000
        assert client._requests._sender._parked == {}
        gate.set()


def test_a_deadline_ends_a_call(served: str, service: str, run: Run) -> None:
    async def use() -> None:
        async with AsyncClient(served, service) as client:
            began = time.monotonic()
            with pytest.raises(CallTimeout) as caught:
                await client.call("wait", timeout=0.2)
            assert caught.value.may_have_run
            assert time.monotonic() - began >= 0.2

    run(use())


def test_callbacks_have_the_context_of_their_caller(served: str, service: str) -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word")
    seen: list[str] = []

    async def use() -> None:
        async with AsyncClient(served, service, timeout=30) as client:
            word.set("mine")
            future = client.submit("add", [1, 2])
            future.add_done_callback(lambda _future: seen.append(word.get()))
            word.set("other")
            await future
            await asyncio.sleep(0)

    asyncio.run(use())
    assert seen == ["mine"]


# -- the loop that it belongs to ------------------------------------------------------------------------------------


def test_another_loop_and_no_loop(served: str, service: str) -> None:
    client = AsyncClient(served, service, timeout=30)
    with pytest.raises(WrongEventLoop, match="none runs on this thread"):
        client.submit("add", [1, 2])

    async def elsewhere() -> None:
        with pytest.raises(WrongEventLoop, match="belongs to another event loop"):
            await client.call("add", [1, 2])
        with pytest.raises(WrongEventLoop, match="belongs to another event loop"):
            await client.aclose()

    async def use() -> None:
        async with client:
            await asyncio.to_thread(asyncio.run, elsewhere())
            assert await client.call("add", [1, 2]) == 3

    asyncio.run(use())


def test_a_loop_that_was_closed_before_its_client(served: str, service: str, run: Run) -> None:
    before = descriptors()
    client = AsyncClient(served, service, timeout=30)
    run(client.call("add", [1, 2]))
    with pytest.raises(WrongEventLoop, match="was closed"):
        run(client.call("add", [1, 2]))
    assert descriptors() <= before
    run(client.aclose())  # to close it is always right
    with pytest.raises(WrongEventLoop, match="was closed"):
        run(client.call("add", [1, 2]))


@pytest.mark.parametrize("loop", ["runs", "was closed"])
def test_one_that_is_dropped_warns_and_leaves_nothing(served: str, service: str, run: Run, loop: str) -> None:
    made: list[weakref.ref[Any]] = []

    async def use() -> list[AsyncClient]:
        clients = [AsyncClient(served, service, timeout=30)]
        made.append(weakref.ref(clients[0]._requests))
        await clients[0].call("add", [1, 2])
        if loop == "was closed":
            return clients
        before = descriptors()
        with pytest.warns(ResourceWarning, match="unclosed AsyncClient"):
            drop(clients)
        if not served.startswith("memory"):
            while descriptors() >= before:
                await asyncio.sleep(0.01)
        return clients

    before = descriptors()
    clients = run(use())
    if clients:
        with pytest.warns(ResourceWarning, match="unclosed AsyncClient"):
            drop(clients)
    if not served.startswith("memory"):
        wait_for(lambda: descriptors() <= before)
    wait_for(lambda: gc.collect() >= 0 and made[0]() is None)


def test_a_forked_process_is_told(url: str, service: str) -> None:
    async def use() -> int:
        async with AsyncClient(url, service, timeout=30) as client:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    client.submit("add", [1, 2])
                except ClientClosed as exc:
                    status = 0 if "process" in str(exc) else 2
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert await client.call("add", [1, 2]) == 3
            return os.waitstatus_to_exitcode(status)

    with Server(url, service, methods={"add": lambda a, b: a + b}):
        assert asyncio.run(use()) == 0


# -- connecting and closing -----------------------------------------------------------------------------------------


def test_no_broker(service: str, run: Run) -> None:
    async def use() -> None:
        client = AsyncClient(f"amqp://127.0.0.1:{free_ports(1)[0]}", service, timeout=0.3)
        with pytest.raises(NotConnected):
            await client.start(0.2)
        with pytest.raises(NotConnected):
            await client.call("add", [1, 2])
        await client.aclose()
        with pytest.raises(ClientClosed):
            await client.call("add", [1, 2])

    run(use())


def test_closing_ends_what_is_in_flight(served: str, service: str, run: Run) -> None:
    async def use() -> None:
        client = await AsyncClient(served, service, timeout=60).start()
        calls = [asyncio.create_task(client.call("wait")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.gather(client.aclose(), client.aclose())
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {ClientClosed}
        await client.aclose()

    run(use())


def test_the_loop_is_not_held_up(url: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    """In asyncio's debug mode each step of the loop that takes longer than 50 ms is logged."""

    async def use() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.05
        async with AsyncClient(url, service, timeout=60) as client:

            async def call_often() -> None:
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    await client.call("add", [1, 2])

            # Few, so that a step of the loop that wakes all of them is short in debug mode, too.
            await asyncio.gather(*(call_often() for _ in range(16)))

    with Server(url, service, methods={"add": lambda a, b: a + b}), caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(use(), debug=True)
    ours = [record.getMessage() for record in caplog.records if "jsonrpc_amqp" in record.getMessage()]
    # A busy machine may take the processor away in any step, so one may be slow; a step that blocks is slow each time.
    assert len(ours) < 5, ours
