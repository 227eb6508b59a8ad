"""Server processes are killed, freeze, or take long; one request kills each process that runs it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pika
import pytest

from jsonrpc_amqp import CallTimeout, ServerError
from jsonrpc_amqp.errors import DELIVERY_LIMIT_REACHED

from ..broker import Broker
from ..command import running
from ..tools import wait_for
from .census import census
from .conftest import FULL
from .fleet import Fleet
from .tally import Case
from .traffic import HEARTBEAT, Service, Traffic, make_client

INNOCENTS = range(10)
# How long callers call while a request kills workers.
SECONDS_OF_POISON = 40.0


def declare(url: str, service: str, **options: Any) -> None:
    """Declare the queue before the census, since it remains."""
    Service().server(url, service, **options).start().stop()


@pytest.mark.fault(
    "worker-kill",
    fault="server process killed (SIGKILL) in the middle of a handler",
    bound="redelivered, and result by another process within 1 s; one reply reaches the caller; no call fails",
    mechanism="acknowledged after the reply is written, so the broker redelivers it to another process",
    full=50,
    short=3,
    seconds=8,
)
def test_worker_is_killed(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    declare(broker.url, service)
    fleet = Fleet(broker.url, service, tmp_path)
    with census(broker, durable={f"{service}_req"}), fleet, make_client(broker.url, service) as client:
        fleet.start(3)
        with Traffic([client], notify=True) as traffic:
            for number in case.rounds():
                waiting = client.submit("slow", [number, 3])
                victim = fleet.wait_for_run("slow", number)
                fleet.kill(victim)
                killed = time.monotonic()
                answered = waiting.result(5)
                case.within("result from another process", time.monotonic() - killed, bound=1, slack=0.5)
                assert answered != victim
                assert len(fleet.runs("slow", number)) == 2
                case.bit("redeliveries", 1)
                fleet.start()
        case.account(traffic)
        assert traffic.errors.total() == 0
        assert client.stats()["dropped_replies"] == client.stats()["pending"] == 0
        wait_for(lambda: traffic.confirmed <= fleet.counts("note").keys())
        case.account_for_lost(traffic, set(fleet.counts("note")))


@pytest.mark.fault(
    "worker-freeze",
    fault="server process frozen (SIGSTOP) in the middle of a handler",
    bound="redelivered after the broker's limit, three heartbeats; one reply each; the process resumes serving",
    mechanism="heartbeats; replies for a lost connection are dropped and counted",
    full=5,
    short=1,
    seconds=30,
)
def test_worker_freezes(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    declare(broker.url, service)
    fleet = Fleet(broker.url, service, tmp_path)
    with census(broker, durable={f"{service}_req"}), fleet, make_client(broker.url, service) as client:
        with Traffic([client], notify=True) as traffic:
            for number in case.rounds():
                fleet.start()
                (victim,) = fleet.processes
                waiting = [client.submit("slow", [10 * number + each, 2], timeout=30) for each in range(6)]
                wait_for(lambda number=number: len(fleet.runs("slow", above=10 * number - 1)) == 6)  # type: ignore[misc]
                fleet.freeze(victim)
                frozen = time.monotonic()
                fleet.start()
                assert victim not in [each.result(15) for each in waiting]
                case.within("result from another process", time.monotonic() - frozen, bound=3 * HEARTBEAT, slack=2)
                fleet.thaw(victim)
                # Not those that it had received before.
                last = max(traffic.confirmed)
                wait_for(lambda victim=victim, last=last: victim in fleet.runs("note", above=last))  # type: ignore[misc]
                stats = fleet.stop(victim)
                # A reply that was written before the loss was noticed is not counted.
                case.bit("late replies dropped", stats["dropped_replies"])
                assert stats["connections"] == 2
                for pid in list(fleet.processes):
                    fleet.stop(pid)
                assert client.stats()["dropped_replies"] == 0
        case.account(traffic)
        assert client.stats()["pending"] == 0


@pytest.mark.fault(
    "slow-handler",
    fault="handler that takes three heartbeats",
    bound="no connection is lost; other requests are served meanwhile",
    mechanism="a follower takes over as the leader",
    full=5,
    short=1,
    seconds=15,
)
def test_handler_takes_long(case: Case, broker: Broker, service: str) -> None:
    served = Service()
    declare(broker.url, service)
    server = served.server(broker.url, service)
    with census(broker, durable={f"{service}_req"}), server, make_client(broker.url, service) as client:
        with Traffic([client]) as traffic:
            for _ in case.rounds():
                assert client.call("nap", [3 * HEARTBEAT, "done"], timeout=20) == "done"
                case.bit("heartbeats missed by a handler", 3)
        case.account(traffic)
        assert traffic.errors.total() == 0
        assert server.stats()["connections"] == client.stats()["connections"] == 1


@pytest.mark.fault(
    "held-interpreter",
    fault="handler that keeps the interpreter lock (GIL) for four heartbeats",
    bound="the request is redelivered within three and a half heartbeats, since the broker waits for three; one reply; "
    "the process resumes serving over a new connection",
    mechanism="heartbeats; what was to be read before the broker closed the connection is not taken for silence; "
    "replies for a lost connection are dropped and counted",
    full=5,
    short=1,
    seconds=30,
)
def test_interpreter_is_held(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    declare(broker.url, service)
    fleet = Fleet(broker.url, service, tmp_path)
    with census(broker, durable={f"{service}_req"}), fleet, make_client(broker.url, service) as client:
        with Traffic([client], notify=True) as traffic:
            for number in case.rounds():
                fleet.start()
                (victim,) = fleet.processes
                held = client.submit("hold", [number, round(4 * HEARTBEAT)], timeout=30)
                assert fleet.wait_for_run("hold", number) == victim
                began = time.monotonic()
                fleet.start()
                assert held.result(20) != victim
                case.within("result from another process", time.monotonic() - began, bound=3.5 * HEARTBEAT, slack=2)
                last = max(traffic.confirmed)
                wait_for(lambda victim=victim, last=last: victim in fleet.runs("note", above=last), 20)  # type: ignore[misc]
                stats = fleet.stop(victim)
                assert stats["connections"] == 2
                case.bit("connections lost", stats["connections"] - 1)
                assert len(fleet.runs("hold", number)) == 2
                for pid in list(fleet.processes):
                    fleet.stop(pid)
        case.account(traffic)
        assert client.stats()["pending"] == client.stats()["dropped_replies"] == 0


@pytest.fixture(scope="module")
def impatient() -> Iterator[Broker]:
    """A node with a consumer timeout of 5 s that it checks every second."""
    tick = "[{rabbit, [{channel_tick_interval, 1000}]}]."
    with Broker(extra_config={"consumer_timeout": "5000"}, advanced_config=tick) as node:
        yield node


@pytest.mark.fault(
    "consumer-timeout",
    fault="handler that takes longer than the broker's consumer_timeout of 5 s",
    bound="consumed again within 2 s of the broker closing the channel; the request is redelivered; "
    "the late reply is dropped",
    mechanism="a channel that the broker closed is not reopened: the client reconnects, and consumes again",
    full=5,
    short=1,
    seconds=25,
)
def test_consumer_timeout(case: Case, impatient: Broker, service: str, tmp_path: Path) -> None:
    # RabbitMQ 4.3 has this limit for quorum queues only; it cancels their consumer, and leaves its channel open.
    closes_channel = impatient.series < (4, 3)
    options: dict[str, Any] = {} if closes_channel else {"queue_type": "quorum"}
    declare(impatient.url, service, **options)
    fleet = Fleet(impatient.url, service, tmp_path, **options)
    with census(impatient, durable={f"{service}_req"}), fleet, make_client(impatient.url, service) as client:
        with Traffic([client], notify=True) as traffic:
            for number in case.rounds():
                fleet.start()
                (pid,) = fleet.processes
                waiting = client.submit("slow", [number, 7.5], timeout=30)
                began = time.monotonic()
                assert waiting.result(20) == pid
                answered = time.monotonic() - began
                assert answered > 5, "the broker did not redeliver the request"
                # It checks every second, so it closes the channel at most 6 s after the delivery.
                case.within("redelivered, and result", answered, bound=8, slack=1)
                traffic.first_result_after(time.monotonic())
                time.sleep(max(0.0, 8.0 - answered))
                stats = fleet.stop(pid)
                assert stats["connections"] == (2 if closes_channel else 1)
                # Else its channel is open, so the late reply is sent, and the client drops that of the second run.
                if closes_channel:
                    case.bit("late replies dropped", stats["dropped_replies"])
                else:
                    case.bit("consumers cancelled", stats["consumers_cancelled"])
                assert len(fleet.runs("slow", number)) == 2
        case.account(traffic)
        assert client.stats()["pending"] == 0


@pytest.mark.fault(
    "poison",
    fault="request that kills each process that runs it, among ten others; quorum queue, prefetch 10",
    bound="ten results, one error; only that request becomes a dead letter, and not a call that expired meanwhile",
    mechanism="the queue counts redeliveries; redelivered requests start one at a time, fewest redeliveries first, "
    "otherwise at random",
    full=3,
    short=1,
    seconds=240,  # a process is started for each death, which takes seconds on a busy machine
)
def test_poison(case: Case, broker: Broker, service: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"queue_type": "quorum", "dead_letters": True}
    declare(broker.url, service, **options)
    connection = pika.BlockingConnection(pika.URLParameters(f"{broker.url}?heartbeat=0"))
    channel = connection.channel()
    kept = {f"{service}_req", f"{service}_dead"}
    fleet = Fleet(broker.url, service, tmp_path, **options, prefetch=10)
    with census(broker, durable=kept), fleet, make_client(broker.url, service, timeout=240) as client:
        for number in case.rounds():
            began, runs_before = time.monotonic(), len(fleet.runs("poison"))
            expired = client.submit("innocent", [-1], timeout=0.2)
            assert isinstance(expired.exception(5), CallTimeout)
            poison = client.submit("poison")
            innocents = [client.submit("innocent", [number * 10 + each]) for each in INNOCENTS]
            deaths = _restart_until(fleet, [poison, *innocents])
            _check_limit_reached(case, poison)
            assert client.stats()["pending"] == 0
            assert [each.result(0) for each in innocents] == [number * 10 + each for each in INNOCENTS]
            case.record.results += len(innocents)
            case.bit("processes killed", deaths)
            assert len(fleet.runs("poison")) - runs_before == deaths
            case.within("whole round", time.monotonic() - began, bound=60, slack=180)
            wait_for(lambda number=number: _waiting(channel, f"{service}_dead") == number + 1)  # type: ignore[misc]
            _method, _properties, body = channel.basic_get(f"{service}_dead", auto_ack=False)
            assert b'"poison"' in body
            channel.basic_recover(requeue=True)
        assert _waiting(channel, f"{service}_req") == 0
    connection.close()


@pytest.mark.fault(
    "poison-of-workers",
    fault="call and notification that kill each process that runs them, to serve --workers, while four callers call",
    bound="no gap of over 3 s between results; at most 2 % of the calls fail; the call has its error within 10 s; "
    "the two become dead letters, and nothing else does",
    mechanism="a worker that has served is restarted at once; a request that is redelivered after a death runs in a "
    "process of its own, and is not run again once it has killed two of these",
    full=2,
    short=1,
    seconds=70,
)
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_poison_of_workers(
    case: Case, broker: Broker, service: str, tmp_path: Path, queue_type: str, workers: int
) -> None:
    for number in case.rounds():
        name, keeps = f"{service}-{number}", number % 2 == 0
        arguments = [
            "--service",
            name,
            f"--workers={workers}",
            f"--queue-type={queue_type}",
            *["--dead-letters"] * keeps,
        ]
        declare(broker.url, name, queue_type=queue_type, dead_letters=keeps)
        kept = {f"{name}_req", f"{name}_dead"} if keeps else {f"{name}_req"}
        with (
            census(broker, durable=kept),
            running(
                "serve", "tests.faults.served:methods", *arguments, url=broker.url, env={"RUNS": str(tmp_path)}
            ) as program,
            make_client(broker.url, name) as client,
        ):
            program.wait_until_said(": serving '", workers)
            with Traffic([client], deadline=4, timeout=4) as traffic:
                traffic.wait_for_flow()
                began = time.monotonic()
                poison = client.submit("poison", timeout=60)
                client.notify("poison")
                _check_limit_reached(case, poison)
                case.within("error of the call", time.monotonic() - began, bound=10, slack=30)
                program.wait_until_said("is not run again", 2)
                time.sleep(max(0.0, began + (SECONDS_OF_POISON if FULL else 5) - time.monotonic()))
            gap = max(after - before for before, after in itertools.pairwise(sorted(traffic.results)))
            case.within("longest gap between results", gap, bound=3, slack=12)
            case.account(traffic)
            assert traffic.errors.total() <= 0.02 * len(traffic.results), traffic.errors
            case.bit(
                "processes killed", _runs(tmp_path, "poison") - case.record.bites.get("processes killed", 0), least=3
            )
            assert client.stats()["pending"] == 0
            assert program.terminate() == 0, program.output
        _check_dead(broker, name, 2 if keeps else None)


def _runs(folder: Path, method: str) -> int:
    return (folder / "runs").read_text().count(f"{method} ")


def _check_dead(broker: Broker, service: str, count: int | None) -> None:
    """Check that the request queue is empty, and how many dead letters there are; None: there is no queue for them."""
    wanted = {f"{service}_req": 0} | ({} if count is None else {f"{service}_dead": count})

    def counts() -> dict[str, int]:
        return {
            row["name"]: row["messages"] for row in broker.list("queues", "name", "messages") if service in row["name"]
        }

    wait_for(
        lambda: counts() == wanted, 30, told=lambda: f"{counts()}"
    )  # a quorum queue reports its counts now and then


def _restart_until(fleet: Fleet, calls: list[Future[Any]]) -> int:
    """Keep one process running until all calls have ended; return how many were started after the first."""
    deaths = 0
    process = fleet.start_unready()
    while not all(call.done() for call in calls):
        if process.poll() is not None:
            deaths += 1
            del fleet.processes[process.pid]
            process = fleet.start_unready()
        time.sleep(0.01)
    process.terminate()
    process.wait(10)
    del fleet.processes[process.pid]
    return deaths


def _check_limit_reached(case: Case, poison: Future[Any]) -> None:
    error = poison.exception(60)
    assert isinstance(error, ServerError)
    assert error.code == DELIVERY_LIMIT_REACHED
    case.record.errors["ServerError"] = case.record.errors.get("ServerError", 0) + 1


def _waiting(channel: Any, queue: str) -> int:
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count
