"""The forms of a call, of both clients."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, assert_type

from jsonrpc_amqp import AsyncBatch, AsyncCalls, AsyncClient, Batch, Calls, Client


def threads(client: Client) -> None:
    assert_type(client.call("m", [1]), Any)
    assert_type(client.notify("m"), None)
    assert_type(client.submit("m", {"a": 1}, timeout=1), Future[Any])
    assert_type(client.submit_notify("m"), Future[None])
    assert_type(client.send_raw(b""), bytes | None)
    assert_type(client.submit_raw(b""), Future[bytes | None])
    assert_type(client.with_options(retry="safe"), Calls)
    assert_type(client.stats(), dict[str, int])
    with client as entered, entered.batch() as batch:
        assert_type(entered, Client)
        assert_type(batch, Batch)
        assert_type(batch.call("m"), Future[Any])
    client.call("m", timeout="5")  # type: ignore[arg-type]  # a number
    client.call("m", retry="always")  # type: ignore[arg-type]  # "safe" or "idempotent"
    client.with_options(no_consumers="fail").call("m", no_consumers="wait")
    client.call("m", no_consumers="raise")  # type: ignore[arg-type]  # "wait" or "fail"


async def coroutines(client: AsyncClient) -> None:
    assert_type(await client.call("m", [1]), Any)
    assert_type(await client.notify("m"), None)
    assert_type(client.submit("m", {"a": 1}, timeout=1), asyncio.Future[Any])
    assert_type(client.submit_notify("m"), asyncio.Future[None])
    assert_type(await client.send_raw(b""), bytes | None)
    assert_type(client.submit_raw(b""), asyncio.Future[bytes | None])
    assert_type(client.with_options(retry="safe"), AsyncCalls)
    assert_type(client.stats(), dict[str, int])
    async with client as entered, entered.batch() as batch:
        assert_type(entered, AsyncClient)
        assert_type(batch, AsyncBatch)
        assert_type(batch.call("m"), asyncio.Future[Any])
    await client.call("m", timeout="5")  # type: ignore[arg-type]  # a number
    await client.call("m", retry="always")  # type: ignore[arg-type]  # "safe" or "idempotent"
