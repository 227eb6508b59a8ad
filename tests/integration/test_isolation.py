"""Requests that run in processes of their own, with real processes and no broker."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.server.counters import Counters
from jsonrpc_amqp.server.isolation import CannotIsolate, Isolation, KilledItsProcesses
from jsonrpc_amqp.server.job import Job

from ..command import is_alive
from ..tools import wait_for
from ..unit.server.fakes import FakeSession

CHILD = textwrap.dedent(
    """
    import os, signal, sys, time
    from jsonrpc_amqp import current_request
    from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
    from jsonrpc_amqp.server.isolation import serve_isolated

    def about():
        request = current_request()
        return [request.service, request.routing_key, request.headers, request.user_id, request.redelivered,
                request.remaining, request.method, request.id]

    methods = {
        "add": lambda a, b: a + b,
        "about": about,
        "pid": os.getpid,
        "die": lambda: os._exit(7),
        "crash": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "leave": sys.exit,
        "nap": time.sleep,
        "fail": lambda: 1 / 0,
        "big": lambda size: "x" * size,
        "back": lambda: current_request().envelope.give_back(),
    }
    dispatcher = Dispatcher(methods)
    dispatcher.register(lambda: os._exit(7), "die_early", ack="early")
    dispatcher.register(lambda: 1, "once", redelivery="refuse")
    serve_isolated(dispatcher, dispatcher, int(sys.argv[1]))
    """
)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def isolation(counters: Counters) -> Iterator[Isolation]:
    made = Isolation([sys.executable, "-c", CHILD], lambda: 0.0, counters)
    yield made
    made.close()


def job(method: str, params: Any = (), *, is_call: bool = True, deadline: float | None = None) -> Job:
    request = {"jsonrpc": "2.0", "method": method, "params": params}
    body = json.dumps(request | ({"id": 1} if is_call else {})).encode()
    delivery = Delivery(
        1,
        1,
        True,
        "jsonrpc",
        "S.request.c.1",
        body,
        user_id="alice",
        raw_headers=b"h",
        headers_of=lambda _raw: {"tenant": "x", "n": 3, "bytes": b"\0"},
    )
    return Job("S", FakeSession(), delivery, deadline)


def result(reply: bytes | None) -> Any:
    assert reply is not None
    return json.loads(reply)["result"]


def test_it_has_the_result(isolation: Isolation, counters: Counters) -> None:
    assert result(isolation.run(job("add", [1, 2]))) == 3
    assert isolation.run(job("add", [1, 2], is_call=False)) is None
    assert counters.snapshot()["isolated"] == 2


def test_the_method_sees_its_request(isolation: Isolation) -> None:
    about = job("about", deadline=time.monotonic() + 50)
    about.delivery.headers_of = lambda _raw: {"tenant": "x", "n": 3}
    service, key, headers, user, redelivered, remaining, method, id = result(isolation.run(about))
    assert (service, key, headers, user, redelivered) == ("S", "S.request.c.1", {"tenant": "x", "n": 3}, "alice", True)
    assert (method, id) == ("about", 1)
    assert 10 < remaining <= 50


def test_one_process_runs_many_in_turn(isolation: Isolation) -> None:
    assert len({result(isolation.run(job("pid"))) for _ in range(5)}) == 1


def test_as_many_processes_as_run_at_a_time(isolation: Isolation) -> None:
    napping = threading.Thread(target=isolation.run, args=[job("nap", [3])])
    first = result(isolation.run(job("pid")))
    napping.start()
    wait_for(lambda: result(isolation.run(job("pid"))) != first)
    napping.join()


@pytest.mark.parametrize("method", ["die", "crash"])
def test_a_killer_is_found_and_the_next_one_runs(isolation: Isolation, method: str) -> None:
    with pytest.raises(KilledItsProcesses, match="killed 2 processes"):
        isolation.run(job(method))
    assert result(isolation.run(job("add", [1, 2]))) == 3


def test_what_was_acknowledged_first_is_not_run_again(isolation: Isolation) -> None:
    killer = job("die_early")
    with pytest.raises(KilledItsProcesses, match="killed the process"):
        isolation.run(killer)
    assert killer.is_settled
    assert killer.session.calls == [("ack", 1), ("flush",)]  # type: ignore[attr-defined]


def test_errors_and_exits_are_replies_and_counted(isolation: Isolation, counters: Counters) -> None:
    pid = result(isolation.run(job("pid")))
    for method in ("fail", "leave"):
        reply = isolation.run(job(method))
        assert reply is not None
        assert json.loads(reply)["error"]["code"] == -32603
    assert counters.snapshot()["failed"] == 2
    assert result(isolation.run(job("pid"))) == pid


def test_what_is_not_run_again_becomes_a_dead_letter(isolation: Isolation) -> None:
    once = job("once", is_call=False)
    assert isolation.run(once) is None
    assert once.is_dead_letter


def test_what_did_not_begin_is_given_back(isolation: Isolation) -> None:
    back = job("back", is_call=False)
    assert isolation.run(back) is None
    assert back.session.calls == [("requeue", 1), ("flush",)]  # type: ignore[attr-defined]


def test_large_replies(isolation: Isolation) -> None:
    assert len(result(isolation.run(job("big", [5_000_000])))) == 5_000_000


@pytest.mark.parametrize("program", ["1 / 0", "import os; os._exit(0)"])
def test_a_process_that_does_not_start_is_no_fault_of_the_request(counters: Counters, program: str) -> None:
    isolation = Isolation([sys.executable, "-c", program], lambda: 0.0, counters)
    with pytest.raises(CannotIsolate):
        isolation.run(job("add", [1, 2]))


def test_a_command_that_is_missing(counters: Counters) -> None:
    with pytest.raises(CannotIsolate):
        Isolation(["/nonexistent"], lambda: 0.0, counters).run(job("add", [1, 2]))


def test_processes_end_with_their_worker(isolation: Isolation) -> None:
    pid = result(isolation.run(job("pid")))
    assert is_alive(pid)
    isolation.close()
    wait_for(lambda: not is_alive(pid))
    # It can be used again: a request that comes late is not lost.
    assert result(isolation.run(job("add", [1, 2]))) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # about a fork with threads
def test_processes_end_with_their_worker_though_a_method_has_forked_it(isolation: Isolation) -> None:
    pid = result(isolation.run(job("pid")))
    end, write_end = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.close(write_end)
        os.read(end, 1)
        os._exit(0)
    os.close(end)
    closing = threading.Thread(target=isolation.close)
    closing.start()
    closing.join(60)
    has_ended = not is_alive(pid)
    os.close(write_end)
    os.waitpid(forked, 0)
    closing.join(60)
    assert has_ended


def test_a_process_that_ended_while_it_was_idle_is_replaced(isolation: Isolation) -> None:
    pid = result(isolation.run(job("pid")))
    (child,) = isolation._idle
    child._process.kill()
    child._process.wait()
    assert result(isolation.run(job("pid"))) != pid
