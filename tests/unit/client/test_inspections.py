"""Queues are inspected a few times a second at most, and the last reply is kept."""

from __future__ import annotations

import math

from jsonrpc_amqp.amqp.base import QueueFacts
from jsonrpc_amqp.client.inspections import Inspections
from jsonrpc_amqp.errors import TopologyMismatch

from .fakes import SERVICE, Clock, FakeSession


class Asking:
    """Inspections with a clock of the test's, and the session that is asked."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.session = FakeSession()
        self.inspections = Inspections(lambda service: f"{service}_req", self.clock)

    def refresh(self, *, after: float = 0.0, service: str = SERVICE) -> None:
        self.clock.now += after
        self.inspections.refresh(self.session, service)

    def queues(self) -> list[str]:
        return [queue for queue, _found in self.session.inspections]


def test_queue_is_inspected_once_in_a_quarter_of_a_second() -> None:
    made = Asking()
    for _ in range(3):
        made.refresh(after=0.125)
    assert made.queues() == ["S_req"]
    made.refresh(after=0.125)
    assert len(made.queues()) == 2


def test_each_service_has_a_quarter_of_a_second_of_its_own() -> None:
    made = Asking()
    made.refresh()
    made.refresh(service="T")
    made.refresh(service="T")
    assert made.queues() == ["S_req", "T_req"]


def test_who_needs_an_answer_asks_at_once() -> None:
    made = Asking()
    told: list[object] = []
    made.refresh()
    made.inspections.ask(made.session, SERVICE, lambda: told.append(made.inspections.of(SERVICE)))
    assert made.queues() == ["S_req", "S_req"]
    made.session.inspections[0][1](QueueFacts(0, 1))
    assert told == []
    made.session.inspections[1][1](QueueFacts(0, 2))
    (inspection,) = told
    assert inspection is made.inspections.of(SERVICE)
    made.refresh(after=0.25)  # it counts as asked
    assert len(made.queues()) == 2


def test_last_reply_is_kept_with_its_time() -> None:
    made = Asking()
    assert made.inspections.of(SERVICE) is None
    made.refresh()
    inspection = made.inspections.of(SERVICE)
    assert inspection is not None
    assert (inspection.facts, inspection.replied_at) == (None, -math.inf)
    made.clock.now += 0.5
    made.session.inspections[0][1](QueueFacts(1, 2))
    assert (inspection.facts, inspection.replied_at) == (QueueFacts(1, 2), made.clock.now)


def test_reply_to_the_connection_before_is_dropped() -> None:
    made = Asking()
    made.refresh()
    made.inspections.reset()
    assert made.inspections.of(SERVICE) is None
    made.refresh()
    made.session.inspections[0][1](TopologyMismatch("no queue"))
    inspection = made.inspections.of(SERVICE)
    assert inspection is not None
    assert inspection.facts is None
