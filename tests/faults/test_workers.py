"""Server processes are killed, freeze, or take long; one request kills each process that runs it."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pika
import pytest

from jsonrpc_amqp import CallTimeout, Server, ServerError
from jsonrpc_amqp.errors import DELIVERY_LIMIT_REACHED

from ..broker import Broker
from ..command import running
from ..tools import wait_for
from .census import census
from .conftest import FULL
from .ends import (
    HEARTBEAT,
    SERVERS,
    AnyClient,
    Service,
    Target,
    kind_of,
    make_clients,
    nap,
    queues,
    stats_of,
    targets,
    targets_of_one,
)
from .fleet import Fleet
from .tally import Case
from .traffic import Traffic

Calls: TypeAlias = dict[int, Future[Any]]
INNOCENTS = range(10)
# How long callers call while a request kills workers.
SECONDS_OF_POISON = 40.0


def declare(url: str, service: str, **options: Any) -> None:
    """Declare the queues before the census, since they remain."""
    Service().servers(url, service, **options).start().stop()


def submit(clients: list[AnyClient], called: list[Target], method: str, numbers: range, *params: Any) -> Calls:
    """Call a method with each number, by the clients and of the targets in turn, so that all pairs have their share."""
    pairs = itertools.cycle(itertools.product(clients, called))
    return {
        number: client.submit(method, [number, *params], service=target.service, timeout=30)
        for number, (client, target) in zip(numbers, pairs, strict=False)
    }


def has_resumed(fleet: Fleet, pid: int, traffic: Traffic, last: int) -> bool:
    """Return whether each server of a process has handled notifications behind one; not those that it had received."""
    behind = [traffic.confirmed.get(number) for number in fleet.numbers("note", pid) if number > last]
    return {pair[1] for pair in behind if pair is not None} == SERVERS.keys()


def unexpected_drops(clients: list[AnyClient], traffic: Traffic) -> int:
    """Return how many replies clients have dropped, but for those of calls that the traffic has cancelled."""
    cancelled: Counter[str] = Counter()
    for (kind, _), outcomes in traffic.outcomes.items():
        cancelled[kind] += outcomes["cancelled"]
    return sum(max(0, client.stats()["dropped_replies"] - cancelled[kind_of(client)]) for client in clients)


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
    fleet, called = Fleet(broker.url, service, tmp_path), targets(service)
    with census(broker, durable=queues(service)), fleet, make_clients(broker.url, service) as clients:
        fleet.start(3)
        slow: list[Future[Any]] = []
        with Traffic(clients, called, notify=True) as traffic:
            for number in case.rounds():
                # Each process may have some of them; all are on their way when one is killed.
                first = len(clients) * len(called) * number
                waiting = submit(clients, called, "slow", range(first, first + len(clients) * len(called)), 3)
                victims = {each: fleet.wait_for_run("slow", each) for each in waiting}
                victim = victims[first + number % len(victims)]
                fleet.kill(victim)
                killed = time.monotonic()
                slow += waiting.values()
                of_victim = [each for each in waiting if victims[each] == victim]
                assert victim not in [waiting[each].result(5) for each in of_victim]
                case.within("result from another process", time.monotonic() - killed, bound=1, slack=0.5)
                assert [len(fleet.runs("slow", each)) for each in of_victim] == [2] * len(of_victim)
                case.bit("redeliveries", len(of_victim))
                fleet.start()
        assert all(call.result(5) > 0 for call in slow)
        case.account(traffic)
        assert traffic.errors.total() == 0
        assert unexpected_drops(clients, traffic) == stats_of(clients, "pending") == 0
        case.account_for_lost(traffic, fleet.notes(traffic.confirmed))


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
    fleet, called = Fleet(broker.url, service, tmp_path), targets(service)
    with census(broker, durable=queues(service)), fleet, make_clients(broker.url, service) as clients:
        with Traffic(clients, called, notify=True) as traffic:
            for number in case.rounds():
                fleet.start()
                (victim,) = fleet.processes
                waiting = submit(clients, called, "slow", range(10 * number, 10 * number + 6), 2)
                wait_for(lambda number=number: len(fleet.runs("slow", above=10 * number - 1)) == 6)  # type: ignore[misc]
                fleet.freeze(victim)
                frozen = time.monotonic()
                fleet.start()
                assert victim not in [each.result(15) for each in waiting.values()]
                case.within("result from another process", time.monotonic() - frozen, bound=3 * HEARTBEAT, slack=2)
                fleet.thaw(victim)
                wait_for(partial(has_resumed, fleet, victim, traffic, max(traffic.confirmed)), 20)
                stats = fleet.stop(victim)
                # A reply that was written before the loss was noticed is not counted.
                case.bit("late replies dropped", sum(each["dropped_replies"] for each in stats.values()))
                assert [each["connections"] for each in stats.values()] == [2] * len(called)
                for pid in list(fleet.processes):
                    fleet.stop(pid)
        case.account(traffic)
        assert unexpected_drops(clients, traffic) == stats_of(clients, "pending") == 0


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
    served, called = Service(), targets(service)
    declare(broker.url, service)
    servers = served.servers(broker.url, service)
    with census(broker, durable=queues(service)), servers, make_clients(broker.url, service) as clients:
        with Traffic(clients, called) as traffic:
            for _ in case.rounds():
                long = nap(clients, called, 3 * HEARTBEAT, "done", timeout=20)
                assert [each.result(20) for each in long] == ["done"] * len(long)
                case.bit("heartbeats missed by a handler", 3 * len(long))
        case.account(traffic)
        assert traffic.errors.total() == 0
        assert servers.stats()["connections"] == len(called)
        assert stats_of(clients, "connections") == len(clients)


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
    fleet, called = Fleet(broker.url, service, tmp_path), targets(service)
    with census(broker, durable=queues(service)), fleet, make_clients(broker.url, service) as clients:
        with Traffic(clients, called, notify=True) as traffic:
            for number in case.rounds():
                fleet.start()
                (victim,) = fleet.processes
                client, target = clients[-1 - number % len(clients)], called[-1 - number % len(called)]
                seconds = round(4 * HEARTBEAT)
                held = client.submit("hold", [number, seconds], service=target.service, timeout=30)
                assert fleet.wait_for_run("hold", number) == victim
                began = time.monotonic()
                fleet.start()
                assert held.result(20) != victim
                case.within("result from another process", time.monotonic() - began, bound=3.5 * HEARTBEAT, slack=2)
                wait_for(partial(has_resumed, fleet, victim, traffic, max(traffic.confirmed)), 20)
                connections = [stats["connections"] for stats in fleet.stop(victim).values()]
                assert connections == [2] * len(called)
                case.bit("connections lost", len(connections))
                assert len(fleet.runs("hold", number)) == 2
                for pid in list(fleet.processes):
                    fleet.stop(pid)
        case.account(traffic)
        assert unexpected_drops(clients, traffic) == stats_of(clients, "pending") == 0


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
    fleet, called = Fleet(impatient.url, service, tmp_path, **options), targets(service)
    with census(impatient, durable=queues(service)), fleet, make_clients(impatient.url, service) as clients:
        with Traffic(clients, called, notify=True) as traffic:
            for number in case.rounds():
                fleet.start()
                (pid,) = fleet.processes
                first = len(called) * number
                # The clients in turn, beginning with the other one in each round.
                callers = clients if number % 2 else clients[::-1]
                waiting = [
                    client.submit("slow", [first + each, 7.5], service=target.service, timeout=30)
                    for each, (client, target) in enumerate(zip(itertools.cycle(callers), called, strict=False))
                ]
                began = time.monotonic()
                assert [each.result(20) for each in waiting] == [pid] * len(waiting)
                answered = time.monotonic() - began
                assert answered > 5, "the broker did not redeliver the requests"
                # It checks every second, so it closes the channel at most 6 s after the delivery.
                case.within("redelivered, and result", answered, bound=8, slack=1)
                traffic.first_result_after(time.monotonic())
                time.sleep(max(0.0, 8.0 - answered))
                stats = fleet.stop(pid).values()
                assert [each["connections"] for each in stats] == [2 if closes_channel else 1] * len(called)
                # Else its channel is open, so the late reply is sent, and the client drops that of the second run.
                what, counter = (
                    ("late replies dropped", "dropped_replies")
                    if closes_channel
                    else ("consumers cancelled", "consumers_cancelled")
                )
                for each in stats:
                    case.bit(what, each[counter])
                assert [len(fleet.runs("slow", first + each)) for each in range(len(called))] == [2] * len(called)
        case.account(traffic)
        assert stats_of(clients, "pending") == 0


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
    called = targets(service)
    kept = queues(service) | {f"{target.service}_dead" for target in called}
    fleet = Fleet(broker.url, service, tmp_path, **options, prefetch=10)
    with census(broker, durable=kept), fleet, make_clients(broker.url, service, timeout=240) as clients:
        for number in case.rounds():
            target = called[-1 - number % len(called)]
            calls = [client.with_options(service=target.service) for client in clients]
            began, runs_before = time.monotonic(), len(fleet.runs("poison"))
            expired = [call.submit("innocent", [-1], timeout=0.2) for call in calls]
            assert all(isinstance(each.exception(5), CallTimeout) for each in expired)
            caller = number % len(clients)
            poison = calls[caller].submit("poison")
            innocents = [
                calls[each % len(calls)].submit("innocent", [number * len(INNOCENTS) + each]) for each in INNOCENTS
            ]
            deaths = _restart_until(fleet, [poison, *innocents])
            _check_limit_reached(case, poison, kind_of(clients[caller]), target)
            assert stats_of(clients, "pending") == 0
            assert [each.result(0) for each in innocents] == [number * len(INNOCENTS) + each for each in INNOCENTS]
            for each in INNOCENTS:
                case.ended(clients[each % len(clients)], target, "results")
            case.bit("processes killed", deaths)
            assert len(fleet.runs("poison")) - runs_before == deaths
            case.within("whole round", time.monotonic() - began, bound=60, slack=180)
            dead, count = f"{target.service}_dead", number // len(called) + 1
            wait_for(lambda dead=dead, count=count: _waiting(channel, dead) == count)  # type: ignore[misc]
            _method, _properties, body = channel.basic_get(dead, auto_ack=False)
            assert b'"poison"' in body
            channel.basic_recover(requeue=True)
        assert [_waiting(channel, each.queue) for each in called] == [0] * len(called)
    connection.close()


@pytest.mark.fault(
    "poison-of-workers",
    fault="call and notification that kill each process that runs them, to serve --workers, while callers call",
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
    case: Case, broker: Broker, service: str, tmp_path: Path, queue_type: Any, workers: int
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
        Server(broker.url, name, queue_type=queue_type, dead_letters=keeps).start().stop()
        called = targets_of_one(name)
        kept = {f"{name}_req", f"{name}_dead"} if keeps else {f"{name}_req"}
        with (
            census(broker, durable=kept),
            running(
                "serve", "tests.faults.served:methods", *arguments, url=broker.url, env={"RUNS": str(tmp_path)}
            ) as program,
            make_clients(broker.url, name) as clients,
        ):
            program.wait_until_said(": serving '", workers)
            with Traffic(clients, called, deadline=4, timeout=4) as traffic:
                traffic.wait_for_flow()
                began = time.monotonic()
                # The call is of the one kind, by the one client, and the notification of the other, by the other.
                (caller, notifier) = clients if number % 2 else clients[::-1]
                (killed, notified) = called if number % 2 else called[::-1]
                poison = caller.submit(f"{killed.prefix}poison", service=name, timeout=60)
                notifier.notify(f"{notified.prefix}poison", service=name)
                _check_limit_reached(case, poison, kind_of(caller), killed)
                case.within("error of the call", time.monotonic() - began, bound=10, slack=30)
                program.wait_until_said("is not run again", 2)
                time.sleep(max(0.0, began + (SECONDS_OF_POISON if FULL else 5) - time.monotonic()))
            for times in traffic.results.values():
                gap = max(after - before for before, after in itertools.pairwise(sorted(times)))
                case.within("longest gap between results", gap, bound=3, slack=12)
            case.account(traffic)
            assert traffic.errors.total() <= 0.02 * traffic.count("results"), traffic.errors
            case.bit(
                "processes killed", _runs(tmp_path, "poison") - case.record.bites.get("processes killed", 0), least=3
            )
            assert stats_of(clients, "pending") == 0
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


def _check_limit_reached(case: Case, poison: Future[Any], client: str, target: Target) -> None:
    error = poison.exception(60)
    assert isinstance(error, ServerError)
    assert error.code == DELIVERY_LIMIT_REACHED
    case.ended(client, target, "errors", error="ServerError")


def _waiting(channel: Any, queue: str) -> int:
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count
