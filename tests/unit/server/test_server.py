"""The arguments of ``Server``, which users write."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp import Dispatcher, Server
from jsonrpc_amqp.options import ConnectionOptions
from jsonrpc_amqp.runtime.base import Runtime

from ...tools import wait_for
from .fakes import SERVICE, FakeSession, FakeTransport, delivery

KEYWORDS: dict[str, Any] = {
    "title": None,
    "version": "0",
    "description": None,
    "discover": True,
    "methods": None,
    "dispatcher": None,
    "dialect": None,
    "recipe_method": None,
    "exchange": "jsonrpc",
    "queue": None,
    "queue_type": None,
    "delivery_limit": 20,
    "dead_letters": False,
    "redelivery": "run",
    "ack": "late",
    "declare": True,
    "concurrency": 8,
    "async_concurrency": 100,
    "cancel_on_deadline": False,
    "validate": True,
    "check_results": False,
    "middleware": (),
    "prefetch": None,
    "stuck_after": None,
    "expose_errors": False,
    "verify_user": False,
    "authorize": None,
    "user": None,
    "reply_to_allowed": None,
    "max_size": 16 << 20,
    "max_batch": 1000,
    "max_depth": 100,
    "max_method": 256,
    "tls": None,
    "heartbeat": 10.0,
    "connect_timeout": 5.0,
    "connection_name": None,
    "transport": None,
}


def test_keywords_and_their_defaults() -> None:
    _self, url, service, *others = inspect.signature(Server.__init__).parameters.values()
    assert (url.name, url.default, service.name, service.default) == ("url", "amqp://", "service", "")
    assert {each.name: each.default for each in others} == KEYWORDS
    assert {each.kind for each in others} == {inspect.Parameter.KEYWORD_ONLY}


def test_prefetch_follows_the_coroutines_that_may_run() -> None:
    async def later() -> None: ...

    server = Server("memory://x", SERVICE)
    assert server._consumer.plan().prefetch == 64
    server.method(later)
    assert server._consumer.plan().prefetch == 200
    methods = {"later": later}
    assert Server("memory://x", SERVICE, methods=methods, async_concurrency=20)._consumer.plan().prefetch == 64
    assert Server("memory://x", SERVICE, methods=methods, prefetch=7)._consumer.plan().prefetch == 7


@pytest.mark.parametrize("number", [0, -1])
def test_a_server_runs_at_least_one_coroutine(number: int) -> None:
    with pytest.raises(ValueError, match="async_concurrency is at least 1"):
        Server("memory://x", SERVICE, async_concurrency=number)


@pytest.mark.parametrize(("options", "prefetch"), [({}, 64), ({"concurrency": 50}, 100), ({"prefetch": 7}, 7)])
def test_prefetch_is_at_least_twice_the_concurrency_unless_it_is_given(options: dict[str, Any], prefetch: int) -> None:
    assert Server("memory://x", SERVICE, **options)._consumer.plan().prefetch == prefetch


def test_the_plan_follows_the_arguments() -> None:
    options: Any = {
        "queue_type": "quorum",
        "delivery_limit": 3,
        "dead_letters": True,
        "declare": False,
        "exchange": "e",
    }
    plan = Server("memory://x", SERVICE, **options)._consumer.plan()
    assert (plan.exchange, plan.queue, plan.bindings) == ("e", "S_req", ("S.request.#",))
    assert (plan.queue_type, plan.delivery_limit, plan.dead_letters, plan.declare) == ("quorum", 3, "S_dead", False)
    assert Server("memory://x", SERVICE, queue="other")._consumer.plan().queue == "other"


def test_the_transport_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ConnectionOptions]] = []

    def connect(url: str, options: ConnectionOptions, _runtime: Runtime) -> FakeTransport:
        seen.append((url, options))
        return FakeTransport()

    monkeypatch.setattr("jsonrpc_amqp.server.base.connect_transport", connect)
    tls = {"ca_certs": "f"}
    Server("amqp://x", SERVICE, heartbeat=20, connect_timeout=2, max_size=5000, tls=tls)
    Server("amqp://x", SERVICE, connection_name="mine")
    name = seen[0][1].name
    assert name.startswith("jsonrpc-amqp server S ")
    assert seen == [
        ("amqp://x", ConnectionOptions(name, 20, 2, True, 5000, tls)),
        ("amqp://x", ConnectionOptions("mine")),
    ]


@pytest.mark.parametrize(("options", "user"), [({}, "guest"), ({"user": "bob"}, "bob")])
def test_replies_carry_the_user(options: dict[str, Any], user: str) -> None:
    server, session = Server("amqp://", SERVICE, transport=FakeTransport(), **options), FakeSession()
    server._consumer.on_open(session)
    with server:
        server._consumer.on_deliveries(session, [delivery(b'{"jsonrpc":"2.0","method":"absent","id":1}')])
        wait_for(lambda: session.published)
    assert session.published[0].user_id == user


def test_stats_have_all_counters_from_the_start() -> None:
    transport = FakeTransport()
    server = Server("amqp://", SERVICE, transport=transport)
    stats = server.stats()
    assert set(stats.values()) == {0}
    assert len(stats) == 16
    transport.stats["connections"] += 1
    assert server.stats() == {**stats, "connections": 1}


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        Server("memory://x", SERVICE, concurrency=0)
    with pytest.raises(ValueError, match="prefetch"):
        Server("memory://x", SERVICE, prefetch=0)
    with pytest.raises(ValueError, match="not both"):
        Server("memory://x", SERVICE, methods={}, dispatcher=Dispatcher())
    with pytest.raises(ValueError, match="amqp://"):
        Server("redis://localhost", SERVICE)


def test_an_unknown_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="redelivery"):
        Server("memory://x", "x", redelivery="maybe")  # type: ignore[arg-type]
    server = Server("memory://x", "x")
    with pytest.raises(ValueError, match="ack"):
        server.method("x", ack="never")(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="dispatcher"):
        Server("memory://x", "x", dispatcher=lambda body: None, redelivery="refuse")
    with pytest.raises(ValueError, match="delivery_limit"):
        Server("memory://x", "x", delivery_limit=0)


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_cannot_go_to_another_process_says_so(how: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled, since their connections belong to this process: make one"):
        how(Server("memory://x", "x"))
