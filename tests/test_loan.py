"""A thread that makes one call after the other drives its connection itself, and lets go of it when it should."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from jsonrpc_amqp import Client, ClientClosed, ConnectionLost, Server
from jsonrpc_amqp.transport.loan import Loan

from .broker import HOST, Broker
from .proxy import Proxy
from .tools import wait_for

# Where nobody drives, an answer waits until the driver looks: up to 0.1 s, each time.
PROMPT = 0.05


def loan_of(client: Client) -> Loan:
    loan = client._caller._transport._driver.loan  # type: ignore[attr-defined]
    assert isinstance(loan, Loan)
    return loan


def borrow(client: Client) -> Loan:
    """Call until the place is lent to this thread."""
    for _ in range(20_000):
        client.call("echo", [1])
        if loan_of(client).borrower == threading.get_ident():
            return loan_of(client)
    raise AssertionError("it was never lent")


def call_for_ever(client: Client) -> NoReturn:
    while True:
        client.call("echo")


def kick() -> str:
    os.kill(os.getpid(), signal.SIGALRM)
    time.sleep(0.003)
    return "kicked"


def echo(value: Any = None) -> Any:
    return value


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@pytest.fixture
def server(url: str, service: str) -> Iterator[Server]:
    with Server(url, service, methods={"echo": echo, "nap": nap, "kick": kick}) as server:
        yield server


@pytest.fixture
def client(url: str, service: str, server: Server) -> Iterator[Client]:
    with Client(url, service, timeout=10) as client:
        yield client


def test_a_lone_caller_drives_and_the_driver_is_back_when_it_stops(client: Client) -> None:
    loan = borrow(client)
    assert client.call("echo", ["one more"]) == "one more"
    wait_for(lambda: loan.borrower is None, 2)


def test_a_future_does_not_wait_for_a_thread_that_went_on_to_other_things(client: Client) -> None:
    taken = []
    for _ in range(5):
        borrow(client)
        began = time.monotonic()
        assert client.submit("echo", [2]).result(10) == 2
        taken.append(time.monotonic() - began)
    assert min(taken) < PROMPT


def test_other_threads_are_served_while_one_has_the_place(client: Client) -> None:
    loan = borrow(client)
    taken = []

    def call() -> None:
        began = time.monotonic()
        assert client.call("echo", [3]) == 3
        taken.append(time.monotonic() - began)

    for _ in range(5):
        borrow(client)
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(10)
    assert min(taken) < PROMPT
    assert loan.borrower != thread.ident


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


def test_an_answer_that_takes_its_time_comes_by_the_driver(client: Client) -> None:
    loan = borrow(client)
    assert client.call("nap", [0.2]) == "slept"
    assert loan.borrower is None


def test_a_deadline_is_kept(client: Client) -> None:
    borrow(client)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.call("nap", [0.5], timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 0.3


def test_a_thread_that_ends_leaves_the_place(client: Client) -> None:
    thread = threading.Thread(target=borrow, args=[client])
    thread.start()
    thread.join(20)
    wait_for(lambda: loan_of(client).borrower is None, 2)
    assert client.call("echo", [4]) == 4


def test_closing_is_prompt(url: str, service: str, server: Server) -> None:
    client = Client(url, service, timeout=10).start()
    borrow(client)
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
        loan = borrow(client)
        threading.Timer(0.002, network.cut).start()
        with pytest.raises(ConnectionLost):
            call_for_ever(client)
        assert loan.borrower is None
        wait_for(lambda: client.stats()["connections"] == 2)
        assert client.call("echo", [5]) == 5
        borrow(client)


# -- signal handlers: Python runs them on the main thread, between any two steps of its ----------------------------


class Interrupted(BaseException):
    """What a handler of the user's raises, as Python's own raises KeyboardInterrupt."""


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Set what is done at SIGALRM: ``handle(something)``."""
    before = signal.getsignal(signal.SIGALRM)

    def set_handler(handler: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, lambda _number, _frame: handler())

    yield set_handler
    signal.signal(signal.SIGALRM, before)


def interrupt() -> None:
    raise Interrupted


def test_an_interrupt_gets_through_and_the_next_call_works(
    client: Client, handle: Callable[[Callable[[], object]], None]
) -> None:
    handle(interrupt)
    for moment in range(40):
        borrow(client)
        # At each moment of a call, amid a step of the driver's, too.
        signal.setitimer(signal.ITIMER_REAL, 0.01 + moment * 0.00002)
        with pytest.raises(Interrupted):
            call_for_ever(client)
        assert client.stats()["pending"] == 0
        assert client.call("echo", [6]) == 6


def test_a_handler_may_call_while_its_thread_waits_for_an_answer(
    client: Client, handle: Callable[[Callable[[], object]], None]
) -> None:
    answers = []

    handle(lambda: answers.append(client.call("echo", [7])))
    for _ in range(5):
        borrow(client)
        assert client.call("kick") == "kicked"
    assert answers == [7] * 5


def test_a_handler_amid_a_step_is_told_that_it_must_not_wait(client: Client) -> None:
    loan = borrow(client)
    loan.stepper = threading.get_ident()
    with pytest.raises(RuntimeError, match="signal handler"):
        client.call("echo")
    loan.stepper = None
    assert client.call("echo", [8]) == 8
