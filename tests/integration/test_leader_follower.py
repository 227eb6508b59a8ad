"""A thread that makes one call after the other drives its connection itself, and lets go of it when it should."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from jsonrpc_amqp import Client, ClientClosed, ConnectionLost, Server, Unroutable, WouldDeadlock
from jsonrpc_amqp.runtime.leader_follower import Leadership

from ..broker import HOST, Broker
from ..interrupts import is_free
from ..proxy import Proxy
from ..tools import wait_for

# Where nobody drives, an answer waits until the driver looks: up to 0.1 s, each time.
PROMPT = 0.05


def leadership_of(client: Client) -> Leadership:
    connection: Any = client._requests._transport
    leadership = connection.runtime._leadership
    assert isinstance(leadership, Leadership)
    return leadership


def lead(client: Client) -> Leadership:
    """Call until leadership is delegated to this thread."""
    leadership = leadership_of(client)
    for _ in range(20_000):
        client.call("echo", [1])
        if leadership.is_delegated_here():
            return leadership
    raise AssertionError("it was never delegated")


def call_for_ever(client: Client) -> NoReturn:
    while True:
        client.call("echo")


def wait_until_it_has(items: list[int], count: int) -> None:
    wait_for(lambda: len(items) >= count)


def echo(value: Any = None) -> Any:
    return value


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@pytest.fixture
def server(url: str, service: str) -> Iterator[Server]:
    with Server(url, service, methods={"echo": echo, "nap": nap}) as server:
        yield server


@pytest.fixture
def client(url: str, service: str, server: Server) -> Iterator[Client]:
    with Client(url, service, timeout=10) as client:
        yield client


def test_a_lone_caller_drives_and_the_driver_is_back_when_it_stops(client: Client) -> None:
    leadership = lead(client)
    assert client.call("echo", ["one more"]) == "one more"
    wait_for(lambda: leadership.caller is None, 2)


def test_a_future_does_not_wait_for_a_thread_that_went_on_to_other_things(client: Client) -> None:
    taken = []
    for _ in range(5):
        lead(client)
        began = time.monotonic()
        assert client.submit("echo", [2]).result(10) == 2
        taken.append(time.monotonic() - began)
    assert min(taken) < PROMPT


def test_other_threads_are_served_while_one_has_the_place(client: Client) -> None:
    leadership = lead(client)
    taken = []

    def call() -> None:
        began = time.monotonic()
        assert client.call("echo", [3]) == 3
        taken.append(time.monotonic() - began)

    for _ in range(5):
        lead(client)
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(10)
    assert min(taken) < PROMPT
    assert leadership.caller != thread.ident


def test_many_threads_that_call_at_once_all_get_their_own_answers(client: Client) -> None:
    wrong: list[object] = []

    def call(name: int) -> None:
        for number in range(200):
            answer = client.call("echo", [[name, number]])
            if answer != [name, number]:
                wrong.append(answer)

    threads = [threading.Thread(target=call, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_another_service_may_be_called_for_the_first_time_meanwhile(client: Client, service: str) -> None:
    """The driver binds its answers, and who asks for that holds the lock that the borrower takes for an answer."""
    stop = threading.Event()
    calls: list[int] = []

    def call() -> None:
        while not stop.is_set():
            calls.append(client.call("echo", [4]))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for number in range(150):
            other = client.submit("echo", service=f"{service}-{number}", timeout=10)
            with pytest.raises(Unroutable):
                other.result(10)
            wait_until_it_has(calls, len(calls) + 10)
    finally:
        stop.set()
        thread.join(10)
    assert set(calls) == {4}


def test_an_answer_that_takes_its_time_comes_by_the_driver(client: Client) -> None:
    leadership = lead(client)
    assert client.call("nap", [0.2]) == "slept"
    assert leadership.caller is None


def test_a_deadline_is_kept(client: Client) -> None:
    lead(client)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.call("nap", [1.0], timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 0.9


def test_a_thread_that_ends_leaves_the_place(client: Client) -> None:
    thread = threading.Thread(target=lead, args=[client])
    thread.start()
    thread.join(20)
    wait_for(lambda: leadership_of(client).caller is None, 2)
    assert client.call("echo", [4]) == 4


def test_closing_is_prompt(url: str, service: str, server: Server) -> None:
    client = Client(url, service, timeout=10).start()
    lead(client)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 0.9  # of 1.0 s, after which it gives up on an orderly end
    assert client.stats()["connections_lost"] == 1
    with pytest.raises(ClientClosed):
        client.call("echo")


def test_a_lost_connection_ends_the_call_and_the_loan(broker: Broker, service: str, server: Server) -> None:
    with (
        Proxy(broker.port) as network,
        Client(f"amqp://guest:guest@{HOST}:{network.port}", service, timeout=10) as client,
    ):
        leadership = lead(client)
        threading.Timer(0.002, network.cut).start()
        with pytest.raises(ConnectionLost):
            call_for_ever(client)
        assert leadership.caller is None
        wait_for(lambda: client.stats()["connections"] == 2)
        assert client.call("echo", [5]) == 5
        lead(client)


# -- signal handlers: Python runs them on the main thread, between any two steps of its ----------------------------


class Interrupted(BaseException):
    """What a handler of the user's raises, as Python's own raises KeyboardInterrupt."""


@pytest.fixture
def handle() -> Iterator[Callable[[int, Callable[[], object]], None]]:
    """Set what is done at a signal: ``handle(number, something)``. (SIGALRM is pytest-timeout's.)"""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGVTALRM)}

    def set_handler(number: int, handler: Callable[[], object]) -> None:
        signal.signal(number, lambda _number, _frame: handler())

    yield set_handler
    for number, handler in before.items():
        signal.signal(number, handler)


Handle = Callable[[int, Callable[[], object]], None]


def interrupt() -> None:
    raise Interrupted


def interrupt_at_work(moment: int) -> None:
    """When this process has used so much CPU time: amid sending, or amid a step of the driver's."""
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.01 + moment * 0.00002)


def interrupt_at_rest(moment: int) -> None:
    """When the main thread lets another one run: as it waits for the answer, most of the time."""
    threading.Timer(0.01 + moment * 0.00002, os.kill, [os.getpid(), signal.SIGUSR1]).start()


@pytest.mark.parametrize("set_timer", [interrupt_at_work, interrupt_at_rest])
def test_an_interrupt_gets_through_and_the_next_call_works(
    client: Client, handle: Handle, set_timer: Callable[[int], None]
) -> None:
    handle(signal.SIGUSR1, interrupt)
    handle(signal.SIGVTALRM, interrupt)
    for moment in range(40):
        lead(client)
        set_timer(moment)
        with pytest.raises(Interrupted):
            call_for_ever(client)
        assert client.stats()["pending"] == 0
        assert client.call("echo", [6]) == 6


# With so many calls the handler is lent the place itself.
@pytest.mark.parametrize("count", [1, 40])
def test_a_handler_may_call_while_its_thread_waits_for_an_answer(
    url: str, service: str, handle: Handle, count: int
) -> None:
    def kick() -> str:
        # The request may be here before the thread that sent it is done with sending.
        wait_for(lambda: is_free(connection._session.outbox.write_lock))
        wait_for(lambda: is_free(leadership_of(client)._step))
        os.kill(os.getpid(), signal.SIGUSR1)
        return "kicked"

    answers: list[int] = []
    with Server(url, service, methods={"echo": echo, "kick": kick}), Client(url, service, timeout=10) as client:
        connection: Any = client._requests._transport
        handle(signal.SIGUSR1, lambda: answers.extend(client.call("echo", [7]) for _ in range(count)))
        for _ in range(6):
            lead(client)
            assert client.call("kick") == "kicked"
    assert answers == [7] * 6 * count


def test_a_handler_may_do_all_but_wait_at_any_moment(client: Client, handle: Handle) -> None:
    """It calls amid sending and amid steps of the driver's, too: that ends at once, and nothing locks up."""
    ends: Counter[str] = Counter()

    def call_and_submit() -> None:
        submitted.append(client.submit("echo", [8]))
        try:
            ends[str(client.call("echo", [9], timeout=5))] += 1
        except WouldDeadlock as exc:
            ends[type(exc).__name__] += "signal handler" in str(exc)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.002 + len(submitted) * 0.00001)

    handle(signal.SIGVTALRM, call_and_submit)
    submitted: list[Any] = []
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)
    try:
        while len(submitted) < 100:
            assert client.call("echo", [10]) == 10
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert [future.result(5) for future in submitted] == [8] * len(submitted)
    assert ends.total() == len(submitted)
    assert set(ends) == {"9", "WouldDeadlock"}, ends
