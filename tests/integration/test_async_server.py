"""``AsyncServer``: what it does that ``Server`` does not; the rest is tested by ``pytest --server=asyncio``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest
import uvloop

from jsonrpc_amqp import (
    AccessRefused,
    AsyncClient,
    AsyncServer,
    CallTimeout,
    Client,
    InternalError,
    NotConnected,
    Request,
    ServerError,
    TransportError,
    WouldDeadlock,
    WrongEventLoop,
    current_request,
)
from jsonrpc_amqp.amqp.memory import MemoryTransport
from tests.broker import Broker, free_ports
from tests.command import running, serving
from tests.tools import wait_for

Run = Callable[[Coroutine[Any, Any, Any]], Any]

SERVED = """
import asyncio
import os
import time
from jsonrpc_amqp import AsyncServer

server = AsyncServer(os.environ["AMQP_URL"], {service!r})


@server.method
async def nap(seconds: float) -> str:
    print("napping", flush=True)
    await asyncio.sleep(seconds)
    return "slept"


@server.method
def block(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@server.method
async def die() -> None:
    os._exit(1)
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return the URL of a broker."""
    return f"memory://{service}" if request.param == "memory" else request.getfixturevalue("url")


async def until(is_true: Callable[[], object]) -> None:
    """Wait until something is true; fail after a minute."""
    async with asyncio.timeout(60):
        while not is_true():
            await asyncio.sleep(0.005)


def threads(service: str) -> list[str]:
    """Return the names of threads that a server has."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(service)]


def test_methods_of_both_kinds_run_where_they_belong(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        loop_thread = threading.current_thread().name
        server = AsyncServer(place, service, concurrency=3)
        context: list[object] = []

        @server.method
        async def here(value: int) -> list[Any]:
            await asyncio.sleep(0)
            request = current_request()
            context.append((request.method, request.id is not None, asyncio.get_running_loop()))
            return [value, threading.current_thread().name]

        @server.method
        def there(value: int) -> list[Any]:
            return [value, threading.current_thread().name]

        async with server, AsyncClient(place, service, timeout=30) as client:
            assert await client.call("here", [1]) == [1, loop_thread]
            assert context == [("here", True, asyncio.get_running_loop())]
            value, thread = await client.call("there", [2])
            assert (value, thread.startswith(f"{service}-handler-")) == (2, True)
            async with client.batch() as batch:
                calls = [batch.call("here", [3]), batch.call("there", [4])]
            assert [(await call)[0] for call in calls] == [3, 4]
            results = await asyncio.gather(*(client.call(name, [n]) for n in range(200) for name in ("here", "there")))
            assert [value for value, _thread in results] == [n for n in range(200) for _ in range(2)]
            assert len(threads(service)) <= 3 + 2 + 3  # handlers, the watch, those of the ends, and of the batch
            await until(lambda: server.stats()["answered"] == 403)
        assert server.stats()["received"] == server.stats()["answered"] == 403

    run(main())


def test_a_large_request_is_not_decoded_by_the_loop(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        async def size(text: str) -> list[Any]:
            return [len(text), threading.current_thread() is threading.main_thread()]

        async with (
            AsyncServer(place, service, methods={"size": size}),
            AsyncClient(place, service, timeout=30) as client,
        ):
            assert await client.call("size", ["x" * 1_000_000]) == [1_000_000, True]

    run(main())


def test_handlers_call_on_with_the_time_of_their_caller(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        async with AsyncServer(place, service) as server, AsyncClient(place, service, timeout=60) as client:

            @server.method
            async def outer() -> str:
                try:
                    return str(await client.call("hang"))
                except CallTimeout as exc:
                    return f"{type(exc).__name__} {current_request().remaining}"

            @server.method
            async def hang() -> None:
                await asyncio.sleep(60)

            began = time.monotonic()
            with pytest.raises(CallTimeout):
                await client.call("outer", timeout=0.3)
            assert time.monotonic() - began < 30
            await server.stop(grace=0)

    run(main())


def test_so_many_coroutines_at_a_time_as_it_was_told(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        running, most = 0, 0

        async def nap() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        async with (
            AsyncServer(place, service, methods={"nap": nap}, async_concurrency=5),
            AsyncClient(place, service, timeout=60) as client,
        ):
            await asyncio.gather(*(client.call("nap") for _ in range(100)))
        assert most == 5

    run(main())


def test_what_expires_behind_others_is_skipped(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        runs, gate = [], asyncio.Event()

        async def wait(number: int) -> None:
            runs.append(number)
            await gate.wait()

        async with (
            AsyncServer(place, service, methods={"wait": wait}, async_concurrency=1) as server,
            AsyncClient(place, service, timeout=60) as client,
        ):
            first = client.submit("wait", [1])
            await until(lambda: runs)
            with pytest.raises(CallTimeout):
                await client.call("wait", [2], timeout=0.2)
            await until(lambda: server.stats()["received"] == 2)
            await asyncio.sleep(0.3)  # by the clock of the server, to which the request came later
            gate.set()
            await first
            await until(lambda: server.stats()["expired"] == 1)
        assert runs == [1]

    run(main())


# -- the event loop that it belongs to -------------------------------------------------------------------------------


def test_it_belongs_to_one_loop(service: str) -> None:
    server = AsyncServer(f"memory://{service}", service)

    async def start() -> None:
        await server.start()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    with pytest.raises(WrongEventLoop, match="asynchronous server belongs to another event loop"):
        asyncio.run(start())
    with pytest.raises(WrongEventLoop, match="belongs to another event loop"):
        asyncio.run(server.stop())
    assert loop.run_until_complete(server.stop())
    loop.close()


def test_a_loop_that_was_closed_leaves_nothing(url: str, service: str) -> None:
    """A server is forgotten: what ran on the loop was cancelled, and stopping it in another loop is no error."""
    before = len(os.listdir("/proc/self/fd"))
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.sleep(60)

    server = AsyncServer(url, service, methods={"hang": hang})
    with Client(url, service, timeout=60) as client:

        async def main() -> Future[Any]:
            await server.start()
            call = client.submit("hang")
            await until(begun.is_set)
            return call

        call = asyncio.run(main())
        assert isinstance(call.exception(60), InternalError)
        with pytest.raises(WrongEventLoop, match="was closed"):
            asyncio.run(server.start())
        assert asyncio.run(server.stop())
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)
    wait_for(lambda: threads(service) == [])


def test_one_that_is_dropped_warns(url: str, service: str) -> None:
    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(NotConnected):
                await AsyncServer("amqp://127.0.0.1:1/", service).start(timeout=0.1)
            gc.collect()
            await until(lambda: threads(service) == [])
        (text,) = [str(each.message) for each in caught if each.category is ResourceWarning]
        assert f"unclosed AsyncServer of {service!r}" in text
        assert "await stop(), or use it in an async with block" in text

    asyncio.run(main())


def test_a_refused_start_says_why(url: str, service: str) -> None:
    async def main() -> None:
        refused = AsyncServer(url.replace("guest:guest", "guest:wrong"), service)
        with pytest.raises(AccessRefused):
            async with refused:
                pass
        with pytest.raises(RuntimeError, match="stopped"):
            await refused.start()
        with pytest.raises(AccessRefused):
            await AsyncServer(url.replace("guest:guest", "guest:wrong"), service).serve_forever()

    asyncio.run(main())


def test_its_transport_is_driven_by_a_loop(service: str) -> None:
    server = AsyncServer(service=service, transport=MemoryTransport(service))
    with pytest.raises(TypeError, match="AsyncioRuntime"):
        asyncio.run(server.start())


# -- drain and stop --------------------------------------------------------------------------------------------------


def test_a_drain_ends_serve_forever_and_awaits_what_runs(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def nap() -> str:
            begun.set()
            await asyncio.sleep(0.2)
            return "slept"

        server = AsyncServer(place, service, methods={"nap": nap})
        serving = asyncio.create_task(server.serve_forever())
        async with AsyncClient(place, service, timeout=30) as client:
            await until(lambda: server.stats()["connections"])
            call = client.submit("nap")
            await begun.wait()
            await asyncio.to_thread(server.drain)  # by any thread
            assert await call == "slept"
            assert await serving is True

    run(main())


def test_a_task_that_is_cancelled_drains(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), []

        async def nap() -> str:
            begun.set()
            await asyncio.sleep(0.2)
            ended.append("slept")
            return "slept"

        server = AsyncServer(place, service, methods={"nap": nap})
        serving = asyncio.create_task(server.serve_forever())
        async with AsyncClient(place, service, timeout=30) as client:
            await until(lambda: server.stats()["connections"])
            call = client.submit("nap")
            await begun.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert await call == "slept"
        await until(lambda: threads(service) == [])

    run(main())


def test_a_stop_that_is_cancelled_goes_on_without_waiting(run: Run, url: str, service: str) -> None:
    async def main() -> None:
        begun, cancelled = asyncio.Event(), []

        async def hang() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append("hang")
                raise

        server = AsyncServer(url, service, methods={"hang": hang})
        await server.start()
        async with AsyncClient(url, service, timeout=60) as client:
            call = client.submit("hang")
            await begun.wait()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await server.stop(grace=60)
            await until(lambda: cancelled)
            assert await server.stop() is False
            # The request went back to the queue.
            begun.clear()
            async with AsyncServer(url, service, methods={"hang": hang}) as other:
                await begun.wait()
                call.cancel()
                assert await other.stop(grace=0) is False

    run(main())


def test_a_stop_cancels_after_the_grace(run: Run, url: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def hang() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(2)  # too long

        server = AsyncServer(url, service, methods={"hang": hang})
        await server.start()
        async with AsyncClient(url, service, timeout=60) as client:
            call = client.submit("hang")
            await begun.wait()
            began = time.monotonic()
            assert await server.stop(grace=0.1) is False
            assert time.monotonic() - began < 30
            call.cancel()

    run(main())
    assert "1 handlers still run after 0.1 s" in caplog.text
    assert "1 coroutines have not ended" in caplog.text


def test_a_handler_may_drain_but_not_stop_its_server(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        server = AsyncServer(place, service)

        @server.method
        async def stop() -> str:
            with pytest.raises(WouldDeadlock, match="inside a handler"):
                await server.stop()
            server.drain()
            return "drained"

        serving = asyncio.create_task(server.serve_forever())
        async with AsyncClient(place, service, timeout=30) as client:
            await until(lambda: server.stats()["connections"])
            assert await client.call("stop") == "drained"
        assert await serving is True

    run(main())


def test_signals_are_for_the_main_thread_and_for_who_asks(service: str) -> None:
    async def main() -> None:
        before = signal.getsignal(signal.SIGTERM)
        server = AsyncServer(f"memory://{service}", service)
        serving = asyncio.create_task(server.serve_forever())
        await until(lambda: server.stats()["connections"])
        assert signal.getsignal(signal.SIGTERM) is before
        server.drain()
        assert await serving
        other = AsyncServer(f"memory://{service}", service)
        serving = asyncio.create_task(other.serve_forever(handle_signals=True))
        await until(lambda: other.stats()["connections"])
        assert signal.getsignal(signal.SIGTERM) is not before
        other.drain()
        assert await serving
        assert signal.getsignal(signal.SIGTERM) is before
        third = AsyncServer(f"memory://{service}", service)
        with pytest.raises(RuntimeError, match="main thread"):
            await asyncio.to_thread(asyncio.run, third.serve_forever(handle_signals=True))

    asyncio.run(main())


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
def test_a_signal_drains(runner: str, url: str, service: str, tmp_path: Any) -> None:
    run = (
        "server.on_serving(lambda: print('it serves', flush=True))\n"
        f"import {runner}\n{runner}.run(server.serve_forever(handle_signals=True))\n"
    )
    (tmp_path / "served.py").write_text(SERVED.format(service=service) + run)
    with (
        running(str(tmp_path / "served.py"), url=url, program=[sys.executable]) as program,
        Client(url, service, timeout=60) as client,
    ):
        program.wait_until_said("it serves")
        call = client.submit("nap", [0.5])
        program.wait_until_said("napping")
        assert program.terminate() == 0
        assert call.result(60) == "slept"


def test_the_command_serves_one(url: str, service: str, tmp_path: Any) -> None:
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "served_by_loop.py").write_text(SERVED.format(service=service))
    with (
        serving("served_by_loop", url=url, env={"PYTHONPATH": path}) as program,
        Client(url, service, timeout=60) as client,
    ):
        call = client.submit("nap", [0.5])
        assert client.call("block", [0.01]) == "slept"
        program.wait_until_said("napping")
        assert program.terminate() == 0
        assert call.result(60) == "slept"


def test_workers_serve_one_and_find_a_poison_request(url: str, service: str, tmp_path: Any) -> None:
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "served_by_loops.py").write_text(SERVED.format(service=service))
    with (
        serving("served_by_loops:server", "--workers", "2", url=url, processes=2, env={"PYTHONPATH": path}) as program,
        Client(url, service, timeout=60) as client,
    ):
        assert isinstance(client.submit("die").exception(60), ServerError)
        assert client.call("nap", [0.01]) == "slept"
        assert program.terminate() == 0


# -- what holds for both kinds of methods ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_an_early_acknowledgement_leaves_before_the_method_begins(
    kind: str, broker: Broker, service: str, tmp_path: Any
) -> None:
    method = f"@server.method(ack='early')\n{kind} vanish():\n    os._exit(1)\n"
    (tmp_path / "served_early.py").write_text(SERVED.format(service=service) + method)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with Client(broker.url, service, timeout=60) as client:
        for _ in range(2):
            with serving("served_early", url=broker.url, env=env) as program:
                call = client.submit("vanish")
                assert program.wait() == 1
            (queue,) = [each for each in broker.list("queues", "name", "messages") if each["name"] == f"{service}_req"]
            assert queue["messages"] == 0
            call.cancel()


def test_authorize_may_be_awaited(run: Run, place: str, service: str) -> None:
    async def main() -> None:
        asked: list[str | None] = []

        async def may(request: Request) -> bool:
            await asyncio.sleep(0)
            asked.append(request.method)
            return request.method != "secret"

        async def here() -> str:
            return "here"

        async def secret() -> str:
            return "secret"

        methods: dict[str, Callable[..., Any]] = {"here": here, "there": lambda: "there", "secret": secret}
        async with (
            AsyncServer(place, service, methods=methods, authorize=may) as server,
            AsyncClient(place, service, timeout=30) as client,
        ):
            assert await client.call("here") == "here"
            assert await client.call("there") == "there"
            with pytest.raises(ServerError) as caught:
                await client.call("secret")
            assert caught.value.code == -32003
            async with client.batch() as batch:
                calls = [batch.call(name) for name in ("here", "secret", "there")]
            assert [isinstance(each, ServerError) for each in await asyncio.gather(*calls, return_exceptions=True)] == [
                False,
                True,
                False,
            ]
            assert asked == ["here", "there", "secret", "here", "secret", "there"]
            await until(lambda: server.stats()["refused"] == 2)

    run(main())


def test_a_handler_that_blocks_the_loop_is_named(service: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def block() -> None:
            time.sleep(1.8)

        place = f"memory://{service}"
        async with (
            AsyncServer(place, service, methods={"block": block}),
            AsyncClient(place, service, timeout=30) as client,
        ):
            with caplog.at_level(logging.WARNING, "jsonrpc_amqp.server"):
                await client.call("block")
        await until(lambda: threads(service) == [])

    asyncio.run(main())
    (line,) = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert line.startswith("method 'block' has blocked the event loop")


def test_it_serves_again_when_the_broker_is_back(run: Run, fragile: Broker, service: str) -> None:
    async def main() -> None:
        async def add(a: int, b: int) -> int:
            return a + b

        async with (
            AsyncServer(fragile.url, service, methods={"add": add}) as server,
            AsyncClient(fragile.url, service, timeout=60) as client,
        ):
            assert await client.call("add", [1, 2]) == 3
            await asyncio.to_thread(fragile.restart)
            assert await _until_answered(lambda: client.call("add", [3, 4])) == 7
            assert server.stats()["connections"] == 2

    run(main())


async def _until_answered(call: Callable[[], Awaitable[Any]]) -> Any:
    while True:
        try:
            return await call()
        except TransportError:
            await asyncio.sleep(0.1)


def test_it_waits_for_a_broker_that_is_not_there(run: Run, service: str) -> None:
    async def main() -> None:
        (port,) = free_ports(1)
        server = AsyncServer(f"amqp://127.0.0.1:{port}/", service)
        serving = asyncio.create_task(server.serve_forever())
        await until(lambda: server.stats()["failed_attempts"] > 1)
        assert not serving.done()
        server.drain()
        assert await serving is True

    run(main())
