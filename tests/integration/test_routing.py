"""What a broker does with messages: the same tests for RabbitMQ and for ``memory://``."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import Plan, Publish, QueueFacts, Session, Transport
from jsonrpc_amqp.amqp.memory import reset
from jsonrpc_amqp.amqp.transport import connect_transport
from jsonrpc_amqp.errors import TopologyMismatch, TransportError, Unroutable
from jsonrpc_amqp.options import ConnectionOptions

from ..tools import wait_for
from ..transport_tools import PATIENCE, TOPICS, Recorder, eventually

Connect = Callable[..., Recorder]


@pytest.fixture
def name() -> str:
    """A word that no other test uses, for exchanges and queues."""
    return f"x{secrets.token_hex(6)}"


@pytest.fixture(params=["memory", "rabbitmq"])
def transport_factory(request: pytest.FixtureRequest, name: str) -> Iterator[Callable[[], Transport]]:
    """Makes transports that reach each other."""
    if request.param == "rabbitmq":
        url = request.getfixturevalue("url")
        yield lambda: connect_transport(url, ConnectionOptions(name))
    else:
        yield lambda: connect_transport(f"memory://{name}", ConnectionOptions(name))
        reset(name)


@pytest.fixture
def connect(transport_factory: Callable[[], Transport], name: str) -> Iterator[Connect]:
    """Connects with a plan for the test's own exchange; closes what it has opened."""
    opened: list[Recorder] = []
    publishers: list[Recorder] = []

    def publisher() -> Recorder:
        if not publishers:
            publishers.append(connect())
        return publishers[0]

    def connect(**plan: Any) -> Recorder:
        end = Recorder(transport_factory(), Plan(**{"exchange": name, **plan}))
        opened.append(end)
        if "queue" in plan:
            end.publisher = publisher
        return end.start()

    yield connect
    for end in opened:
        end.close()


# -- where a message goes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("binding_key", "routing_key", "matches"), TOPICS)
def test_topic_keys(connect: Connect, name: str, binding_key: str, routing_key: str, matches: bool) -> None:
    end = connect(reply_queue="exclusive", bindings=(binding_key,))
    outcome = end.publish_confirmed(Publish(name, routing_key, b"hello"))
    if matches:
        assert outcome is None
        end.wait_for_bodies(b"hello")
    else:
        assert isinstance(outcome, Unroutable)
        assert not outcome.may_have_run


def test_two_matching_bindings_bring_one_copy(connect: Connect, name: str) -> None:
    end = connect(reply_queue="exclusive", bindings=("a.#", "#.b"))
    end.session.publish(Publish(name, "a.b", b"both"))
    end.publish(Publish(name, "a.c", b"last"))
    end.wait_for_bodies(b"both", b"last")


def test_every_bound_queue_gets_a_copy(connect: Connect, name: str) -> None:
    ends = [connect(reply_queue="exclusive", bindings=("a.*",)) for _ in range(2)]
    assert ends[0].publish_confirmed(Publish(name, "a.b", b"hello")) is None
    for end in ends:
        end.wait_for_bodies(b"hello")


def test_a_binding_can_be_added(connect: Connect, name: str) -> None:
    end = connect(reply_queue="exclusive")
    assert isinstance(end.publish_confirmed(Publish(name, "late.one", b"early")), Unroutable)
    end.bind("late.#")
    assert end.publish_confirmed(Publish(name, "late.one", b"in time")) is None
    end.wait_for_bodies(b"in time")


def test_properties_and_headers_arrive(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("S.request.#",), prefetch=1)
    user = end.transport.user
    sent = Publish(
        name,
        "S.request.joe-1.7",
        b"\x00body\xff",
        correlation_id="7",
        reply_to="amq.gen-answers",
        expiration_ms=60_000,
        timeout_ms=1500,
        message_id="m-1",
        user_id=user,
        headers={"trace": "t-1", "attempt": 2},
    )
    assert end.publish_confirmed(sent) is None
    [got] = end.wait_for_bodies(b"\x00body\xff")
    assert (got.exchange, got.routing_key, got.size, got.redelivered) == (name, "S.request.joe-1.7", 6, False)
    assert (got.correlation_id, got.reply_to, got.message_id) == ("7", "amq.gen-answers", "m-1")
    assert (got.user_id, got.timeout_ms) == (user, 1500)
    assert got.headers == {"trace": "t-1", "attempt": 2, "timeout-ms": 1500}


def test_a_bare_message_arrives_bare(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    end.publish(Publish(name, "a", b""))
    [got] = end.wait_for_bodies(b"")
    assert (got.correlation_id, got.reply_to, got.message_id, got.user_id, got.timeout_ms) == (None,) * 5
    assert got.headers == {}


def test_the_default_exchange_knows_queues_by_name(connect: Connect, name: str) -> None:
    end = connect(queue=name, prefetch=1)
    assert end.publish_confirmed(Publish("", name, b"hello")) is None
    end.wait_for_bodies(b"hello")
    assert isinstance(end.publish_confirmed(Publish("", f"{name}-missing", b"hello")), Unroutable)


# -- messages that no queue takes, or that are refused -------------------------------------------------------


def test_only_mandatory_messages_come_back(connect: Connect, name: str) -> None:
    end = connect()
    end.session.publish(Publish(name, "nobody", b"", mandatory=False, correlation_id="1"))
    end.publish(Publish(name, "nobody.too", b"", correlation_id="2", message_id="m-2"))
    end.wait_for(lambda: bool(end.returned))
    [returned] = end.returned
    assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE")
    assert (returned.exchange, returned.routing_key) == (name, "nobody.too")
    assert (returned.correlation_id, returned.message_id) == ("2", "m-2")


def test_an_optional_message_without_a_queue_is_confirmed(connect: Connect, name: str) -> None:
    end = connect()
    assert end.publish_confirmed(Publish(name, "nobody", b"", mandatory=False)) is None


def test_a_confirmed_message_comes_back_as_its_outcome_only(connect: Connect, name: str) -> None:
    end = connect()
    assert isinstance(end.publish_confirmed(Publish(name, "nobody", b"", message_id="m-1")), Unroutable)
    assert end.returned == []


def test_every_confirmed_message_has_its_own_outcome(connect: Connect, name: str) -> None:
    end = connect(reply_queue="exclusive", bindings=("bound",))
    outcomes: list[Future[TransportError | None]] = [Future() for _ in range(50)]
    for number, outcome in enumerate(outcomes):
        key = "nobody" if number % 3 == 0 else "bound"
        message = Publish(name, key, b"", message_id=f"m-{number}")
        assert end.session.publish_confirmed(message, outcome.set_result)
    end.session.flush()
    unroutable = [isinstance(outcome.result(PATIENCE), Unroutable) for outcome in outcomes]
    assert unroutable == [number % 3 == 0 for number in range(50)]


def test_an_unknown_exchange_refuses_the_message_and_not_the_next(connect: Connect, name: str) -> None:
    end = connect(reply_queue="exclusive", bindings=("a",))
    lost = Publish(f"{name}-missing", "a", b"")
    end.publish(lost)
    end.wait_for(lambda: bool(end.refused))
    [(error, message)] = end.refused
    assert message is lost
    assert not error.may_have_run
    end.publish_surely(Publish(name, "a", b"still here"))
    end.wait_for_bodies(b"still here")


def test_an_unknown_exchange_is_told_to_a_confirmed_message(connect: Connect, name: str) -> None:
    end = connect(reply_queue="exclusive", bindings=("a",))
    outcome = end.publish_confirmed(Publish(f"{name}-missing", "a", b""))
    assert isinstance(outcome, TransportError)
    assert not isinstance(outcome, Unroutable)
    end.publish_surely(Publish(name, "a", b"still here"))
    end.wait_for_bodies(b"still here")


def test_a_false_user_id_is_refused(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    forged = Publish(name, "a", b"forged", user_id="somebody-else")
    end.publish(forged)
    end.wait_for(lambda: bool(end.refused))
    end.publish_surely(Publish(name, "a", b"honest", user_id=end.transport.user))
    end.wait_for_bodies(b"honest")


def test_a_false_user_id_is_told_to_a_confirmed_message(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    outcome = end.publish_confirmed(Publish(name, "a", b"forged", user_id="somebody-else"))
    assert isinstance(outcome, TransportError)
    end.publish_surely(Publish(name, "a", b"honest", user_id=end.transport.user))
    end.wait_for_bodies(b"honest")


def test_an_expiration_of_more_than_ten_years_is_refused(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    ten_years = 10 * 365 * 24 * 3600 * 1000
    assert end.publish_confirmed(Publish(name, "a", b"most", expiration_ms=ten_years)) is None
    outcome = end.publish_confirmed(Publish(name, "a", b"more", expiration_ms=ten_years + 1))
    assert isinstance(outcome, TransportError)
    end.wait_for_bodies(b"most")


# -- expiration ---------------------------------------------------------------------------------------------


def test_an_expired_message_is_dropped(connect: Connect, name: str) -> None:
    connect(queue=name, bindings=("a",), prefetch=1).close()
    end = connect()
    assert end.publish_confirmed(Publish(name, "a", b"short", expiration_ms=20)) is None
    eventually(lambda: end.inspect(name) == QueueFacts(0, 0))


def test_messages_expire_behind_others_and_those_stay(connect: Connect, name: str) -> None:
    connect(queue=name, bindings=("a",), prefetch=1).close()
    end = connect()
    for body, expiration_ms in [(b"1", None), (b"2", 20), (b"3", 20), (b"4", 60_000), (b"5", None)]:
        assert end.publish_confirmed(Publish(name, "a", body, expiration_ms=expiration_ms)) is None
    end.wait_until(time.monotonic() + 0.1)
    connect(queue=name).wait_for_bodies(b"1", b"4", b"5")


def test_a_message_that_is_held_does_not_expire(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    end.session.publish(Publish(name, "a", b"held", expiration_ms=20))
    end.session.publish(Publish(name, "a", b"waits", expiration_ms=20))
    end.publish(Publish(name, "a", b"last"))
    [held] = end.wait_for_bodies(b"held")
    end.wait_until(time.monotonic() + 0.1)
    end.ack(held)
    end.wait_for_bodies(b"held", b"last")


# -- a shared queue: acks, prefetch, sharing ------------------------------------------------------------------


def test_a_requeued_message_comes_again_and_says_so(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    assert end.publish_confirmed(Publish(name, "a", b"1")) is None
    assert end.publish_confirmed(Publish(name, "a", b"2")) is None
    [first] = end.wait_for_bodies(b"1")
    end.requeue(first)
    again = end.wait_for_bodies(b"1", b"1")[1]
    assert (first.redelivered, again.redelivered) == (False, True)
    end.ack(again)
    assert end.wait_for_bodies(b"1", b"1", b"2")[2].redelivered is False


def test_closing_returns_what_was_not_acked_in_its_order(connect: Connect, name: str) -> None:
    first = connect(queue=name, bindings=("a",), prefetch=3)
    for body in (b"1", b"2", b"3", b"4"):
        assert first.publish_confirmed(Publish(name, "a", body)) is None
    _, two, _ = first.wait_for_bodies(b"1", b"2", b"3")
    first.ack(two)
    first.wait_for_bodies(b"1", b"2", b"3", b"4")
    first.close()
    second = connect(queue=name, prefetch=10)
    again = second.wait_for_bodies(b"1", b"3", b"4")
    assert [delivery.redelivered for delivery in again] == [True, True, True]


def test_an_ack_written_before_the_close_counts(connect: Connect, name: str) -> None:
    first = connect(queue=name, bindings=("a",), prefetch=1)
    assert first.publish_confirmed(Publish(name, "a", b"done")) is None
    first.session.ack(first.wait_for_bodies(b"done")[0])
    first.close()
    second = connect()
    assert second.inspect(name) == QueueFacts(0, 0)


def test_messages_and_bindings_outlive_connections(connect: Connect, name: str) -> None:
    connect(queue=name, bindings=("a",), prefetch=1).close()
    client = connect()
    assert client.publish_confirmed(Publish(name, "a", b"kept", persistent=True)) is None
    client.close()
    [kept] = connect(queue=name, prefetch=1).wait_for_bodies(b"kept")
    assert kept.redelivered is False


def test_prefetch_bounds_what_is_unacknowledged(connect: Connect, name: str) -> None:
    client = connect()
    connect(queue=name, bindings=("a",)).close()
    for body in (b"1", b"2", b"3", b"4", b"5"):
        assert client.publish_confirmed(Publish(name, "a", body)) is None
    server = connect(queue=name, prefetch=2)
    one, _ = server.wait_for_bodies(b"1", b"2")
    assert client.inspect(name) == QueueFacts(3, 1)
    server.ack(one)
    server.wait_for_bodies(b"1", b"2", b"3")
    assert client.inspect(name) == QueueFacts(2, 1)


def test_two_consumers_share_a_queue(connect: Connect, name: str) -> None:
    servers = [connect(queue=name, bindings=("a",), prefetch=1) for _ in range(2)]
    client = connect()
    assert client.publish_confirmed(Publish(name, "a", b"1")) is None
    assert client.publish_confirmed(Publish(name, "a", b"2")) is None
    for server in servers:
        # One each: the first has no room for the second message.
        server.wait_for_count(1)
    assert sorted(servers[0].bodies + servers[1].bodies) == [b"1", b"2"]
    busy, free = servers
    free.on_delivery = lambda session, delivery: session.ack(delivery)
    free.ack(free.deliveries[0])
    for body in (b"3", b"4", b"5"):
        assert client.publish_confirmed(Publish(name, "a", body)) is None
    free.wait_for(lambda: free.bodies[1:] == [b"3", b"4", b"5"])
    assert len(busy.deliveries) == 1


def test_work_goes_round(connect: Connect, name: str) -> None:
    servers = [connect(queue=name, bindings=("a",), prefetch=10) for _ in range(2)]
    for number in range(6):
        assert servers[0].publish_confirmed(Publish(name, "a", b"%d" % number)) is None
    for server in servers:
        server.wait_for_count(3)
    assert sorted(servers[0].bodies + servers[1].bodies) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_inspect(connect: Connect, name: str) -> None:
    end = connect()
    assert isinstance(end.inspect(name), TopologyMismatch)
    server = connect(queue=name, prefetch=1)
    assert end.inspect(name) == QueueFacts(0, 1)
    server.close()
    assert end.publish_confirmed(Publish("", name, b"waits")) is None
    assert end.inspect(name) == QueueFacts(1, 0)


def test_no_delivery_follows_a_cancel(connect: Connect, name: str) -> None:
    server = connect(queue=name, bindings=("a",), prefetch=10)
    assert server.publish_confirmed(Publish(name, "a", b"1")) is None
    [one] = server.wait_for_bodies(b"1")
    server.cancel()
    assert server.publish_confirmed(Publish(name, "a", b"2")) is None
    assert server.inspect(name) == QueueFacts(1, 0)
    server.session.ack(one)
    server.close()
    assert server.bodies == [b"1"]
    connect(queue=name, prefetch=10).wait_for_bodies(b"2")


# -- reply queues ----------------------------------------------------------------------------------------------


def test_a_reply_queue_goes_with_its_connection(connect: Connect, name: str) -> None:
    client, server = connect(reply_queue="exclusive", bindings=("S.response.joe-1.#",)), connect()
    answer = Publish(name, "S.response.joe-1.7", b"hello")
    assert server.publish_confirmed(answer) is None
    client.wait_for_bodies(b"hello")
    client.close()
    eventually(lambda: isinstance(server.publish_confirmed(answer), Unroutable))


def test_direct_reply_to(connect: Connect, name: str) -> None:
    server = connect(queue=name, bindings=("a",), prefetch=1)
    clients = [connect(reply_queue="direct") for _ in range(2)]
    for number, client in enumerate(clients):
        request = Publish(name, "a", b"%d" % number, correlation_id="7", reply_to="amq.rabbitmq.reply-to")
        client.publish(request)
        server.wait_for_count(number + 1)
        server.ack(server.deliveries[-1])
    reply_to = [delivery.reply_to or "" for delivery in server.deliveries]
    assert all(address.startswith("amq.rabbitmq.reply-to.") for address in reply_to)
    for body, address in zip((b"zero", b"one"), reply_to, strict=True):
        server.publish(Publish("", address, body, mandatory=False, correlation_id="7"))
    for body, client in zip((b"zero", b"one"), clients, strict=True):
        assert [answer.correlation_id for answer in client.wait_for_bodies(body)] == ["7"]


def test_an_answer_to_a_dead_direct_client_does_not_come_back_unless_mandatory(connect: Connect, name: str) -> None:
    server, client = connect(queue=name, bindings=("a",), prefetch=1), connect(reply_queue="direct")
    client.publish(Publish(name, "a", b"", reply_to="amq.rabbitmq.reply-to"))
    [request] = server.wait_for_bodies(b"")
    client.close()
    # Whether a mandatory one comes back differs: RabbitMQ 4.3 drops it.
    server.publish(Publish("", str(request.reply_to), b"", mandatory=False, correlation_id="dead"))
    server.publish(Publish("", f"{name}.absent", b"", correlation_id="absent"))
    server.wait_for(lambda: bool(server.returned))
    assert [returned.correlation_id for returned in server.returned] == ["absent"]


def test_direct_reply_to_without_a_direct_reply_queue_is_refused(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    end.publish(Publish(name, "a", b"", reply_to="amq.rabbitmq.reply-to"))
    end.wait_for(lambda: bool(end.refused))
    assert end.deliveries == []


def test_direct_reply_to_ends_with_a_cancel(connect: Connect, name: str) -> None:
    server, client = connect(queue=name, bindings=("a",), prefetch=1), connect(reply_queue="direct")
    client.cancel()
    client.publish(Publish(name, "a", b"", reply_to="amq.rabbitmq.reply-to"))
    client.wait_for(lambda: bool(client.refused))
    assert server.deliveries == []


# -- topology ----------------------------------------------------------------------------------------------------


def test_a_missing_exchange_is_a_mismatch_until_it_is_there(connect: Connect, name: str) -> None:
    end = connect(declare=False)
    [(error, retry_in)] = end.failed
    assert isinstance(error, TopologyMismatch)
    assert retry_in is None
    connect()
    wait_for(lambda: end.start().sessions)  # the refusal stands for a moment
    assert len(end.sessions) == 1


def test_a_missing_queue_is_a_mismatch(connect: Connect, name: str) -> None:
    connect()
    [(error, retry_in)] = connect(declare=False, queue=name).failed
    assert isinstance(error, TopologyMismatch)
    assert retry_in is None


def test_a_passive_plan_uses_what_is_there(connect: Connect, name: str) -> None:
    connect(queue=name, bindings=("a",)).close()
    server = connect(declare=False, queue=name, bindings=("a", "b"), prefetch=1)
    assert server.publish_confirmed(Publish(name, "a", b"hello")) is None
    server.wait_for_bodies(b"hello")
    # Whoever may not declare need not be allowed to bind either.
    assert isinstance(server.publish_confirmed(Publish(name, "b", b"")), Unroutable)


def test_a_passive_client_still_has_its_own_reply_queue(connect: Connect, name: str) -> None:
    connect()
    client = connect(declare=False, reply_queue="exclusive", bindings=("a",))
    assert client.publish_confirmed(Publish(name, "a", b"hello")) is None
    client.wait_for_bodies(b"hello")


def test_another_queue_type_is_a_mismatch(connect: Connect, name: str) -> None:
    connect(queue=name).close()
    [(error, retry_in)] = connect(queue=name, queue_type="quorum").failed
    assert isinstance(error, TopologyMismatch)
    assert retry_in is None


# -- threads, time, and the end -----------------------------------------------------------------------------------


def test_on_tick_comes_when_it_asked_to(connect: Connect) -> None:
    end = connect()
    due = time.monotonic() + 0.1
    end.wait_until(due)
    assert min(tick for tick in end.ticks if tick >= due) < due + 0.5


def test_wake_brings_a_tick_soon(connect: Connect) -> None:
    end = connect()
    end.due = time.monotonic() + 3600
    asked = time.monotonic()
    end.transport.wake()
    end.wait_for(lambda: any(tick >= asked for tick in end.ticks))
    assert min(tick for tick in end.ticks if tick >= asked) < asked + 0.5


def test_ticks_come_while_messages_do(connect: Connect, name: str) -> None:
    end = connect(reply_queue="exclusive", bindings=("a",))
    stop = threading.Event()

    def go_on(session: Session, _: object) -> None:
        if not stop.is_set():
            session.publish(Publish(name, "a", b""))

    end.on_delivery = go_on
    for _ in range(4):
        go_on(end.session, None)
    end.session.flush()
    try:
        end.wait_until(time.monotonic() + 0.05)
    finally:
        stop.set()


def test_a_callback_may_publish(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)

    def count_down(session: Session, delivery: Any) -> None:
        left = int(delivery.body)
        if left:
            session.publish(Publish(name, "a", b"%d" % (left - 1)))
        session.ack(delivery)

    end.on_delivery = count_down
    end.publish(Publish(name, "a", b"400"))
    end.wait_for_bodies(*(b"%d" % left for left in range(400, -1, -1)))


def test_a_round_trip_is_not_polled_for(connect: Connect, name: str) -> None:
    server = connect(queue=name, bindings=("a",), prefetch=1)
    client = connect(reply_queue="exclusive", bindings=("b",))

    def answer(session: Session, delivery: Any) -> None:
        session.publish(Publish(name, "b", delivery.body))
        session.ack(delivery)

    server.on_delivery = answer
    took = []
    for number in range(50):
        began = time.perf_counter()
        client.publish(Publish(name, "a", b"%d" % number))
        client.wait_for_count(number + 1)
        took.append(time.perf_counter() - began)
    # Generous to a busy machine; whoever polls for messages is slower.
    assert statistics.median(took) < 0.01


def test_a_closed_session_takes_nothing(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), prefetch=1)
    assert end.publish_confirmed(Publish(name, "a", b"held")) is None
    [held] = end.wait_for_bodies(b"held")
    session = end.session
    end.close()
    message = Publish(name, "a", b"late")
    assert session.publish(message) is False
    assert session.publish_confirmed(message, lambda error: None) is False
    session.ack(held)
    session.requeue(held)
    session.flush()
    other = connect(queue=name, prefetch=10)
    other.wait_for_bodies(b"held")
    assert other.inspect(name) == QueueFacts(0, 1)


def test_a_delivery_of_a_dead_session_means_nothing_to_the_next(connect: Connect, name: str) -> None:
    first = connect(queue=name, bindings=("a",), prefetch=1)
    assert first.publish_confirmed(Publish(name, "a", b"1")) is None
    [old] = first.wait_for_bodies(b"1")
    session = first.session
    first.close()
    second = connect(queue=name, prefetch=1)
    second.wait_for_bodies(b"1")
    session.ack(old)
    second.close()
    connect(queue=name, prefetch=1).wait_for_bodies(b"1")


# -- dead letters ---------------------------------------------------------------------------------------------


def test_what_is_rejected_becomes_a_dead_letter(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), dead_letters=f"{name}.dead")
    assert end.publish_confirmed(Publish(name, "a", b"1", expiration_ms=60_000)) is None
    [delivery] = end.wait_for_bodies(b"1")
    end.reject(delivery)
    [letter] = connect(queue=f"{name}.dead", declare=False).wait_for_bodies(b"1")
    assert letter.headers["x-first-death-reason"] == "rejected"
    assert letter.headers["x-first-death-queue"] == name
    assert end.inspect(name) == QueueFacts(0, 1)


def test_without_dead_letters_what_is_rejected_is_dropped(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",))
    assert end.publish_confirmed(Publish(name, "a", b"1")) is None
    end.reject(end.wait_for_bodies(b"1")[0])
    assert end.inspect(name) == QueueFacts(0, 1)


def test_what_expires_becomes_no_dead_letter(connect: Connect, name: str) -> None:
    connect(queue=name, bindings=("a",), dead_letters=f"{name}.dead").close()
    end = connect()
    assert end.publish_confirmed(Publish(name, "a", b"1", expiration_ms=1)) is None
    eventually(lambda: end.inspect(name) == QueueFacts(0, 0))
    assert end.inspect(f"{name}.dead") == QueueFacts(0, 0)


def test_a_quorum_queue_counts_and_stops_at_its_limit(connect: Connect, name: str) -> None:
    plan = {"queue": name, "queue_type": "quorum", "delivery_limit": 2, "dead_letters": f"{name}.dead"}
    end = connect(**plan, bindings=("a",))
    assert end.publish_confirmed(Publish(name, "a", b"1")) is None
    for count in range(3):
        [delivery] = end.wait_for_bodies(b"1")
        assert delivery.delivery_count == count
        end.close()
        end = connect(**plan)
    [letter] = connect(queue=f"{name}.dead", declare=False).wait_for_bodies(b"1")
    assert letter.headers["x-first-death-reason"] == "delivery_limit"


def test_what_is_given_back_is_no_failed_delivery(connect: Connect, name: str) -> None:
    end = connect(queue=name, queue_type="quorum", delivery_limit=2, bindings=("a",))
    assert end.publish_confirmed(Publish(name, "a", b"1")) is None
    counts = []
    for count in range(3):
        delivery = end.wait_for_bodies(*[b"1"] * (count + 1))[count]
        assert delivery.redelivered == (count > 0)
        counts.append(delivery.delivery_count)
        end.requeue(delivery)
    assert counts in ([0, 0, 0], [0, 1, 2])  # before RabbitMQ 4.3 it is one


def test_a_classic_queue_does_not_count(connect: Connect, name: str) -> None:
    end = connect(queue=name, bindings=("a",), delivery_limit=1)
    assert end.publish_confirmed(Publish(name, "a", b"1")) is None
    for count in range(4):
        delivery = end.wait_for_bodies(*[b"1"] * (count + 1))[count]
        assert delivery.delivery_count == 0
        end.requeue(delivery)


@pytest.mark.parametrize(
    ("first", "then", "difference"),
    [
        ({}, {"queue_type": "quorum"}, "and x-queue-type 'quorum' was asked for"),
        ({}, {"dead_letters": "x.dead"}, "x-dead-letter-exchange"),
        (
            {"queue_type": "quorum", "delivery_limit": 5},
            {"queue_type": "quorum", "delivery_limit": 6},
            "x-delivery-limit",
        ),
    ],
)
def test_a_queue_that_differs_is_named_with_the_difference(
    connect: Connect, name: str, first: dict[str, Any], then: dict[str, Any], difference: str
) -> None:
    connect(queue=name, **first)
    [(error, retry_in)] = connect(queue=name, **then).failed
    assert isinstance(error, TopologyMismatch)
    assert f"queue '{name}' exists with " in str(error)
    assert difference in str(error)
    assert not error.may_have_run
    assert retry_in is None
