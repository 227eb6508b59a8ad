"""Which services the reply queue is bound for."""

from __future__ import annotations

from jsonrpc_amqp.client.addresses import Addresses, Routing
from jsonrpc_amqp.client.reply_bindings import MOST_AT_SET_UP, MOST_REDECLARED, REDECLARE_SECONDS, ReplyBindings
from jsonrpc_amqp.errors import AccessRefused, TransportError

from .fakes import EXCHANGE, FakeSession

Done = list[tuple[str, TransportError | None]]


def bindings(*services: str, is_needed: bool = True) -> tuple[ReplyBindings, Addresses]:
    addresses = Addresses(Routing(EXCHANGE), "guest")
    addresses.new_connection()
    addresses.services.update(services)
    return ReplyBindings(addresses, is_needed=is_needed), addresses


def test_connection_begins_with_the_services_so_far() -> None:
    made, addresses = bindings("S", "T")
    keys = made.new_connection(set())
    assert sorted(keys) == [addresses.reply_binding("S"), addresses.reply_binding("T")]
    assert (made.is_bound("S"), made.is_bound("T"), made.is_bound("U")) == (True, True, False)


def test_connection_begins_with_some_that_are_called_of_many() -> None:
    names = {f"S{number}" for number in range(300)}
    made, addresses = bindings(*names)
    assert set(made.new_connection({"S7", "S8"})) == {addresses.reply_binding("S7"), addresses.reply_binding("S8")}
    assert {name for name in names if made.is_bound(name)} == {"S7", "S8"}
    assert len(made.new_connection(names)) == MOST_AT_SET_UP
    assert sum(map(made.is_bound, names)) == MOST_AT_SET_UP


def test_nothing_is_bound_where_replies_do_not_come_over_the_exchange() -> None:
    made, _addresses = bindings("S", is_needed=False)
    assert made.new_connection(set()) == ()
    assert made.is_bound("S")
    assert made.is_bound("T")


def test_service_is_bound_once_at_a_time() -> None:
    made, addresses = bindings()
    session, done = FakeSession(), Done()
    for _ in range(2):
        made.bind(session, "S", lambda service, error: done.append((service, error)))
    ((key, outcome),) = session.binds
    assert key == addresses.reply_binding("S")
    outcome(None)
    assert done == [("S", None)]


def test_service_counts_as_bound_once_the_broker_said_so() -> None:
    made, _addresses = bindings()
    made.bind(FakeSession(), "S", lambda _service, _error: None)
    assert not made.is_bound("S")
    made.note_bound("S", None)
    assert made.is_bound("S")


def test_binding_that_failed_is_tried_again() -> None:
    made, _addresses = bindings()
    session = FakeSession()
    made.bind(session, "S", lambda _service, _error: None)
    made.note_bound("S", AccessRefused("no"))
    assert not made.is_bound("S")
    made.bind(session, "S", lambda _service, _error: None)
    assert len(session.binds) == 2


def test_next_connection_forgets_what_was_bound_and_what_was_under_way() -> None:
    made, addresses = bindings()
    session = FakeSession()
    made.note_bound("S", None)
    made.bind(session, "T", lambda _service, _error: None)
    assert made.new_connection(set()) == ()
    assert not made.is_bound("S")
    made.bind(session, "T", lambda _service, _error: None)
    assert len(session.binds) == 2
    assert addresses.services == set()


def test_service_that_is_used_meanwhile_does_not_count_as_bound() -> None:
    made, addresses = bindings("S")
    made.new_connection(set())
    addresses.services.add("T")
    assert not made.is_bound("T")


def test_redeclared_at_an_interval_while_calls_are_pending() -> None:
    made, _addresses = bindings()
    made.opened(100.0)
    assert REDECLARE_SECONDS == 2.0
    assert made.next_redeclare(101.5, has_pending=True) == (False, 102.0)
    assert made.next_redeclare(102.0, has_pending=True) == (True, 104.0)
    assert made.next_redeclare(103.0, has_pending=True) == (False, 104.0)
    assert made.next_redeclare(105.0, has_pending=False) == (False, 107.0)
    assert made.next_redeclare(109.0, has_pending=True) == (True, 111.0)


def test_never_redeclared_where_replies_do_not_come_over_the_exchange() -> None:
    made, _addresses = bindings(is_needed=False)
    made.opened(100.0)
    assert made.next_redeclare(102.0, has_pending=True) == (False, 104.0)


def bound(*services: str) -> tuple[ReplyBindings, Addresses]:
    made, addresses = bindings(*services)
    for service in services:
        made.note_bound(service, None)
    return made, addresses


def test_all_of_a_few_are_redeclared_whether_they_are_called_or_not() -> None:
    made, addresses = bound("S", "T")
    assert set(made.keys_to_redeclare({"S", "not bound"})) == set(map(addresses.reply_binding, ("S", "T")))


def test_of_many_services_some_are_redeclared_at_a_time_and_each_in_its_turn() -> None:
    services = [f"S{number}" for number in range(2000)]
    made, addresses = bound(*services)
    rounds = [made.keys_to_redeclare({"S7"}) for _ in range(21)]
    assert {len(keys) for keys in rounds} == {MOST_REDECLARED}
    assert {key for keys in rounds for key in keys} == set(map(addresses.reply_binding, services))
    assert all(addresses.reply_binding("S7") in keys for keys in rounds)


def test_of_many_services_that_are_called_each_is_redeclared_in_its_turn() -> None:
    services = [f"S{number}" for number in range(2 * MOST_REDECLARED)]
    made, _addresses = bound(*services)
    rounds = [made.keys_to_redeclare(set(services)) for _ in range(3)]
    assert set(rounds[0]).isdisjoint(rounds[1])
    assert set(rounds[0]) == set(rounds[2])


def test_next_connection_redeclares_what_is_bound_then() -> None:
    services = [f"S{number}" for number in range(300)]
    made, addresses = bound(*services)
    made.new_connection({"S7"})
    assert made.keys_to_redeclare({"S7", "S8"}) == (addresses.reply_binding("S7"),)
