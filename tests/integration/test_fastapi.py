"""The FastAPI example under load, while its broker is restarted: a real broker, uvicorn as a process, real HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from jsonrpc_amqp import Client

from ..broker import HOST, Broker
from ..command import PATIENCE, ROOT, Program, running
from ..http_tools import free_port, request
from ..tools import wait_for

EXAMPLES = ROOT / "examples"
# Of load, about, on an idle machine; FASTAPI_SECONDS=30 is the long form. The broker restarts in five seconds of it.
SECONDS = float(os.environ.get("FASTAPI_SECONDS", "10"))
PAUSE = (SECONDS - 5) / 3
CLIENTS = 64
NOT_READY = {"status": "not ready"}
ARTICLE = {"name": "bread", "price": 3.5, "in_stock": 12}
# Seconds: what the application promises for a request, and what a busy machine may add.
DEADLINE, SLACK = 2.0, 20.0


@contextmanager
def application(url: str) -> Iterator[tuple[Program, int]]:
    """Run the application and its services during a ``with`` block; yield its process and its port."""
    port = free_port()
    # A connection that uvicorn closes as it is used again fails a request: not while the test lasts.
    words = ["-m", "uvicorn", "examples.fastapi_app:app", "--host", HOST, "--port", str(port), "--no-access-log"]
    words += ["--timeout-keep-alive", "300"]
    with (
        running(str(EXAMPLES / "fastapi_services.py"), program=[sys.executable], url=url) as services,
        running(*words, program=[sys.executable], url=url) as app,
    ):
        app.wait_until_said("Uvicorn running on")
        wait_for(lambda: is_ready(port), PATIENCE, told=lambda: app.output)
        wait_for(lambda: request(port, "GET", "/articles/bread").status == 200, PATIENCE, told=lambda: services.output)
        yield app, port


def is_ready(port: int) -> bool:
    reply = request(port, "GET", "/readyz", timeout=DEADLINE + SLACK)
    assert (reply.status, reply.json) in ((200, {"status": "ready"}), (503, NOT_READY))
    return reply.status == 200


class Load:
    """Clients that ask for an article all the time; what they got."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.slowest = 0.0
        self.is_over = False

    async def run(self) -> None:
        async with (
            httpx.AsyncClient(
                base_url=f"http://{HOST}:{self._port}",
                limits=httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS),
                timeout=DEADLINE + SLACK,
            ) as client,
            asyncio.TaskGroup() as clients,
        ):
            for _ in range(CLIENTS):
                clients.create_task(self._ask(client))

    async def _ask(self, client: httpx.AsyncClient) -> None:
        while not self.is_over:
            began = time.monotonic()
            reply = await client.get("/articles/bread")
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[reply.status_code] += 1
            body = reply.json()
            if reply.status_code == 200:
                assert body == ARTICLE
            else:
                assert reply.status_code == (504 if body["error"] in ("CallTimeout", "TimeoutError") else 503), body
                self.errors[body["error"]] += 1
            await asyncio.sleep(0.2)  # other tests run beside this one


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, while other tasks run."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300 + SECONDS)
def test_requests_end_in_time_while_the_broker_is_restarted(fragile: Broker) -> None:
    broker = fragile
    with application(broker.url) as (app, port):
        load = Load(port)

        async def restart() -> None:
            await asyncio.sleep(PAUSE)
            assert await asyncio.to_thread(is_ready, port)
            await asyncio.to_thread(broker.shut_down)
            await until(lambda: not is_ready(port))
            down = time.monotonic() + PAUSE
            while time.monotonic() < down:
                assert not await asyncio.to_thread(is_ready, port)
                await asyncio.sleep(0.05)
            await asyncio.to_thread(broker.restart)
            await until(lambda: is_ready(port))
            served = load.statuses[200]
            await until(lambda: load.statuses[200] > served + 2 * CLIENTS)
            await asyncio.sleep(PAUSE)
            load.is_over = True

        async def run() -> None:
            async with asyncio.TaskGroup() as both:
                both.create_task(load.run())
                both.create_task(restart())

        asyncio.run(run())
        assert load.slowest < DEADLINE + SLACK
        assert {200, 503} <= set(load.statuses) <= {200, 503, 504}, load.statuses
        assert load.errors["NotConnected"] > 0, load.errors
        with Client(broker.url, "shop.web", timeout=60) as client:
            assert client.call("visits.of", ["bread"]) >= load.statuses[200]
        app.terminate()  # its exit code is that of the signal, which uvicorn raises again
        assert "Application shutdown complete" in app.output
        assert "Traceback" not in app.output
        assert "never retrieved" not in app.output
