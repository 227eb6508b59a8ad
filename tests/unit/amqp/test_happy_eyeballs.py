"""In which order the addresses of a host are tried. That the first to answer wins is in tests/integration."""

from __future__ import annotations

import selectors
import socket
from typing import Any

import pytest

from jsonrpc_amqp.amqp.deadline import Deadline
from jsonrpc_amqp.amqp.happy_eyeballs import Address, AddressMemory, _Race

HOST, PORT = "broker", 5672


def address(text: str) -> Address:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return Address(family, socket.SOCK_STREAM, 6, (text, PORT))


A, B, C, SIX, SEVEN = map(address, ("10.0.0.1", "10.0.0.2", "10.0.0.3", "::6", "::7"))


@pytest.fixture
def memory() -> AddressMemory:
    return AddressMemory()


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        ([A, B, C], [A, B, C]),
        ([SIX, SEVEN, A, B], [SIX, A, SEVEN, B]),
        ([A, SIX, SEVEN], [A, SIX, SEVEN]),
        ([A, B, SIX], [A, SIX, B]),
        ([A, A, B, A], [A, B]),
    ],
)
def test_families_alternate(memory: AddressMemory, found: list[Address], order: list[Address]) -> None:
    assert memory.order(HOST, PORT, found) == order


def test_what_worked_is_tried_first(memory: AddressMemory) -> None:
    memory.note_success(HOST, PORT, C)
    assert memory.order(HOST, PORT, [A, B, C]) == [C, A, B]
    assert memory.order(HOST, 1, [A, B, C]) == [A, B, C]
    assert memory.order(HOST, PORT, [A, B]) == [A, B]


def test_what_failed_is_tried_last_the_oldest_failure_first(memory: AddressMemory) -> None:
    memory.note_success(HOST, PORT, A)
    orders = []
    for _ in range(4):
        orders.append(memory.order(HOST, PORT, [A, B, C]))
        memory.note_failure(HOST, PORT, orders[-1][0])
    assert orders == [[A, B, C], [B, C, A], [C, A, B], [A, B, C]]
    memory.note_success(HOST, PORT, B)
    assert memory.order(HOST, PORT, [A, B, C]) == [B, A, C]


def test_a_failure_is_forgotten_with_its_address(memory: AddressMemory) -> None:
    for each in (A, B):
        memory.note_failure(HOST, PORT, each)
    assert memory.order(HOST, PORT, [B, C]) == [C, B]
    assert memory.order(HOST, PORT, [A, B, C]) == [A, C, B]


def test_a_forked_process_closes_what_is_being_connected() -> None:
    race = _Race([A, B], Deadline(5))
    near, far = socket.socketpair()
    with near, far:
        race._selector.register(near, selectors.EVENT_WRITE, A)
        selector: Any = race._selector
        race.close_in_child()
        assert near.fileno() == -1
        assert selector.get_map() is None
    race.close_in_child()  # or when it has ended
