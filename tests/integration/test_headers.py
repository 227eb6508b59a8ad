"""Headers of callers: what RabbitMQ would refuse is refused here, and what it refuses all the same hurts no other."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from struct import pack
from typing import Any

import amqp
import pytest

from jsonrpc_amqp import (
    Client,
    ConnectionLost,
    EncodeError,
    MaybeRejected,
    MessageRejected,
    Server,
    current_request,
)
from jsonrpc_amqp.amqp.tables import Headers

from ..headers import RAW, REFUSED, TAKEN, Refused, Taken, entry, table, text
from ..tools import wait_for

BODY = b'{"jsonrpc": "2.0", "method": "echo", "params": [1], "id": 1}'


class Raw:
    """A connection that publishes any bytes as headers."""

    def __init__(self, url: str) -> None:
        self.connection = _connected(int(url.rsplit(":", 1)[1].strip("/")))
        self.channel = self.connection.channel()
        self._queue = self.channel.queue_declare("", exclusive=True).queue

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.collect()

    def publish(self, key: str, entries: bytes, *, exchange: str = "jsonrpc", body: bytes = BODY) -> None:
        arguments = pack(">HHH", 60, 40, 0) + _short(exchange) + _short(key) + b"\0"
        header = pack(">HHQH", 60, 0, len(body), 0x2000) + table(entries)
        frames = ((1, arguments), (2, header), (3, body))
        self.connection.transport.write(
            b"".join(pack(">BHI", kind, 1, len(payload)) + payload + b"\xce" for kind, payload in frames)
        )

    def answer(self) -> int | None:
        """Return the code with which the broker closed the channel or the connection; None: it has not."""
        try:
            self.channel.queue_declare(self._queue, passive=True)
        except amqp.AMQPError as exc:
            return exc.reply_code
        return None


def _connected(port: int) -> Any:  # the stubs know too little of py-amqp
    connection = amqp.Connection(f"127.0.0.1:{port}", connect_timeout=10, read_timeout=10, write_timeout=10)
    connection.connect()
    return connection


def _short(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


class Echo:
    """A server that notes the headers and the time left of each request; ``hold`` waits until ``go``."""

    def __init__(self, url: str, service: str, **options: Any) -> None:
        self.go = threading.Event()
        self.seen: list[tuple[dict[str, Any], float | None]] = []
        self.server = Server(url, service, methods={"echo": self.echo, "hold": self.hold}, **options)

    def echo(self, value: Any) -> Any:
        request = current_request()
        self.seen.append((dict(request.headers), request.remaining))
        return value

    def hold(self, value: Any) -> Any:
        assert self.go.wait(30)
        return value


@pytest.fixture
def echo(url: str, service: str) -> Iterator[Echo]:
    made = Echo(url, service)
    with made.server:
        yield made
        made.go.set()


@pytest.fixture
def client(url: str, service: str) -> Iterator[Client]:
    with Client(url, service, timeout=20) as made:
        yield made


# -- what RabbitMQ takes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAW)
def test_how_the_broker_answers_raw_bytes(url: str, name: str) -> None:
    entries, code = RAW[name]
    with Raw(url) as raw:
        if not raw.connection.server_properties["version"].startswith("3.10."):
            pytest.skip("the answers are those of RabbitMQ 3.10")
        raw.publish("nowhere", entries, exchange="amq.topic")
        assert raw.answer() == code


@pytest.mark.parametrize("case", TAKEN, ids=repr)
def test_what_is_sent_arrives(echo: Echo, client: Client, case: Taken) -> None:
    assert client.call("echo", [1], headers=case.headers, timeout=20) == 1
    ((headers, remaining),) = echo.seen
    assert headers.pop("timeout-ms") <= 20_000
    assert headers == case.received
    assert remaining is not None
    assert client.stats()["connections"] == echo.server.stats()["connections"] == 1


@pytest.mark.parametrize("case", REFUSED, ids=repr)
def test_what_cannot_be_sent_is_refused_before_anything_is_written(echo: Echo, client: Client, case: Refused) -> None:
    held = client.submit("hold", ["in flight"])
    forms: list[Callable[[], Any]] = [
        lambda: client.call("echo", [1], headers=case.headers),
        lambda: client.notify("echo", [1], headers=case.headers, retry="idempotent"),
        lambda: client.submit("echo", [1], headers=case.headers),
        lambda: client.submit_notify("echo", [1], headers=case.headers),
        lambda: client.send_raw(BODY, headers=case.headers, persistent=True),
        lambda: client.with_options(headers=case.headers),
    ]
    for form in forms:
        with pytest.raises(EncodeError, match=r"header .* cannot be sent: ") as caught:
            form()
        assert case.says in str(caught.value)
    with pytest.raises(EncodeError), client.batch(headers=case.headers) as batch:
        batch.call("echo", [1])
    echo.go.set()
    assert held.result(20) == "in flight"
    assert client.call("echo", [2]) == 2
    assert echo.seen[0][0].keys() == {"timeout-ms"}
    assert client.stats()["connections"] == 1


def test_headers_that_no_frame_has_room_for_are_refused_by_name(echo: Echo, client: Client) -> None:
    for size, is_taken in ((126_000, True), (131_072, False), (1 << 20, False)):
        headers = {"trace": "t", "large": "x" * size}
        if is_taken:
            assert client.call("echo", [1], headers=headers) == 1
            client.notify("echo", [1], headers=headers)
            continue
        for form in (client.call, client.notify, lambda *a, **o: client.submit(*a, **o).result(20)):
            with pytest.raises(EncodeError, match="the largest header is 'large'"):
                form("echo", [1], headers=headers)
    wait_for(lambda: len(echo.seen) == 2)
    assert client.stats()["connections"] == 1


# -- what it refuses all the same -----------------------------------------------------------------------------------


def unknown(entries: bytes) -> Headers:
    """Return headers that pass all checks of ours, and are sent as these bytes."""
    headers = Headers({"unknown": "to our checks"})
    headers.entries = entries
    return headers


NAN = entry(b"load", b"d" + pack(">d", math.nan))
BAD_COPIES = entry(b"CC", text(b"audit"))


def ended(future: Future[Any], seconds: float = 20) -> Any:
    """Return the result, or the error."""
    error = future.exception(seconds)
    return future.result() if error is None else error


@pytest.mark.parametrize("entries", [NAN, BAD_COPIES], ids=["connection closed", "channel closed"])
@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_a_call_that_ends_the_connection_does_so_once(
    url: str, service: str, echo: Echo, entries: bytes, reply: Any
) -> None:
    with Client(url, service, reply=reply, timeout=20) as client:
        innocent = [client.submit("hold", [number], retry="idempotent") for number in range(10)]
        in_doubt = client.submit("hold", [0], headers={"trace": "t"}, retry="idempotent")
        wait_for(lambda: echo.server.stats()["received"] == 11)
        began = time.monotonic()
        bad = client.submit("echo", [1], headers=unknown(entries), retry="idempotent")
        error = ended(bad)
        assert time.monotonic() - began < 5
        assert type(error) is MaybeRejected
        assert error.may_have_run
        assert "it may be because of this message" in str(error)
        # It is not known which of those with headers it was.
        assert type(ended(in_doubt)) is MaybeRejected
        echo.go.set()
        assert [ended(each) for each in innocent] == list(range(10))
        assert client.stats()["connections"] == 2
        assert client.call("echo", [3], headers={"trace": "t"}) == 3
    assert echo.seen[-1][0]["trace"] == "t"


@pytest.mark.parametrize("entries", [NAN, BAD_COPIES], ids=["connection closed", "channel closed"])
@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_calls_that_were_confirmed_are_not_suspected(
    url: str, service: str, echo: Echo, entries: bytes, reply: Any
) -> None:
    with Client(url, service, reply=reply, confirm=True, timeout=20) as client:
        innocent = client.submit("hold", [1], headers={"trace": "t"}, retry="idempotent")
        wait_for(lambda: echo.server.stats()["received"] == 1)
        assert client.call("echo", [0]) == 0  # confirmed behind the other one
        error = ended(client.submit("echo", [1], headers=unknown(entries), retry="idempotent"))
        assert type(error) is (MaybeRejected if entries == NAN else MessageRejected)
        echo.go.set()
        assert ended(innocent) == 1
        assert client.stats()["connections"] == (1 if entries == BAD_COPIES and reply == "topic" else 2)


def test_without_retries_the_calls_in_flight_are_lost_and_not_suspected(echo: Echo, client: Client) -> None:
    innocent = client.submit("hold", [1])
    wait_for(lambda: echo.server.stats()["received"] == 1)
    assert type(ended(client.submit("echo", [1], headers=unknown(NAN)))) is MaybeRejected
    assert type(ended(innocent)) is ConnectionLost


def test_a_lone_notification_is_told_that_it_is_the_one(echo: Echo, client: Client) -> None:
    held = client.submit("hold", [1])
    wait_for(lambda: echo.server.stats()["received"] == 1)
    with pytest.raises(MessageRejected, match="unacceptable_type_in_header") as caught:
        client.notify("echo", [1], headers=unknown(BAD_COPIES), retry="idempotent")
    assert not caught.value.may_have_run
    assert "another message" not in str(caught.value)
    # Only the channel of notifications was closed.
    client.notify("echo", [2], headers={"trace": "t"})
    echo.go.set()
    assert held.result(20) == 1
    assert client.stats()["connections"] == 1


def test_a_notification_that_ends_the_connection_does_so_once(echo: Echo, client: Client) -> None:
    held = client.submit("hold", [1], retry="idempotent")
    wait_for(lambda: echo.server.stats()["received"] == 1)
    with pytest.raises(MaybeRejected, match="it may be because of this message"):
        client.notify("echo", [1], headers=unknown(NAN), retry="idempotent")
    client.notify("echo", [2], retry="idempotent")
    echo.go.set()
    assert held.result(20) == 1
    assert client.stats()["connections"] == 2


def test_of_many_notifications_one_ends_as_rejected_and_those_with_headers_as_suspects(
    echo: Echo, client: Client
) -> None:
    headers: list[Mapping[str, Any] | None] = [None, {"trace": "t"}, None, unknown(BAD_COPIES), {"trace": "u"}, None]
    futures = [client.submit_notify("echo", [1], headers=each, retry="idempotent") for each in headers]
    for each, future in zip(headers, futures, strict=True):
        error = future.exception(20)
        if each is None:
            assert error is None
        elif type(each) is Headers:
            assert isinstance(error, (MaybeRejected, MessageRejected))
        else:
            assert error is None or type(error) is MaybeRejected
    assert client.stats()["connections"] == 1


# -- what arrives ---------------------------------------------------------------------------------------------------


BEYOND = b"T" + b"\xff" * 8
TIMEOUT, TRACE = entry(b"timeout-ms", b"I\0\0\x27\x10"), entry(b"traceparent", text(b"00-1"))


def test_one_header_that_cannot_be_read_costs_itself_only(
    url: str, service: str, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Raw(url) as raw:
        for entries in (TIMEOUT + entry(b"when", BEYOND) + TRACE, entry(b"when", BEYOND) + TRACE + TIMEOUT):
            raw.publish(f"{service}.request.x", entries)
        wait_for(lambda: len(echo.seen) == 2)
    for headers, remaining in echo.seen:
        assert headers == {"timeout-ms": 10_000, "traceparent": "00-1"}
        assert remaining is not None
        assert 0 < remaining <= 10
    assert echo.server.stats()["unreadable_headers"] == 2
    assert sum("headers of a message cannot be read" in record.getMessage() for record in caplog.records) == 2


def test_a_request_that_reached_its_limit_is_recognised_among_headers_that_cannot_be_read(
    url: str, service: str
) -> None:
    echo = Echo(url, service, queue_type="quorum", delivery_limit=2)
    with echo.server:
        pass
    with Raw(url) as raw:
        raw.publish(f"{service}.request.x", entry(b"when", BEYOND))
        for _ in range(2):
            (message,) = _taken(raw, f"{service}_req")
            raw.channel.basic_reject(message, requeue=True)
    again = Echo(url, service, queue_type="quorum", delivery_limit=2)
    with again.server:
        wait_for(lambda: again.server.stats()["failed"] == 1)
        assert again.seen == []
    _delete(url, f"{service}_req")


def _taken(raw: Raw, queue: str) -> list[int]:
    tags: list[int] = []

    def take() -> bool:
        # py-amqp cannot read the message, so only its tag is taken from the first frame.
        arguments = pack(">HHH", 60, 70, 0) + _short(queue) + b"\0"
        raw.connection.transport.write(pack(">BHI", 1, 1, len(arguments)) + arguments + b"\xce")
        _kind, _channel, payload = raw.connection.transport.read_frame()
        if bytes(payload[:4]) != pack(">HH", 60, 71):
            return False
        for _ in range(2):
            raw.connection.transport.read_frame()
        tags.append(int.from_bytes(payload[4:12], "big"))
        return True

    wait_for(take)
    return tags


def _delete(url: str, *queues: str) -> None:
    with Raw(url) as raw:
        for queue in queues:
            raw.channel.queue_delete(queue)


def test_a_header_in_a_larger_frame_than_was_agreed_on(url: str, service: str) -> None:
    # A quorum queue adds x-delivery-count, and RabbitMQ sends what results in one frame.
    options: dict[str, Any] = {"queue_type": "quorum"}
    with Echo(url, service, **options).server:
        pass
    with Raw(url) as raw:
        raw.publish(f"{service}.request.x", entry(b"large", text(b"x" * 131_033)))
        (message,) = _taken(raw, f"{service}_req")
        raw.channel.basic_reject(message, requeue=True)
    echo = Echo(url, service, **options)
    with echo.server, Client(url, service, timeout=20) as client:
        wait_for(lambda: len(echo.seen) == 1)
        assert client.call("echo", [2]) == 2
        assert echo.server.stats()["connections"] == 1
        ((headers, _remaining),) = echo.seen[:1]
        assert (len(headers["large"]), headers["x-delivery-count"]) == (131_033, 1)
    _delete(url, f"{service}_req")


# -- why a caller's x-death is checked ------------------------------------------------------------------------------


def test_what_a_malformed_x_death_does_to_a_queue(url: str, service: str) -> None:
    """No message of ours: it shows what a receiver of one loses, when the message is dead-lettered."""
    queue = f"{service}_req"
    with Raw(url) as raw:
        if not raw.connection.server_properties["version"].startswith("3.10."):
            pytest.skip("it is so in RabbitMQ 3.10")
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "nowhere"}
        raw.channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
        raw.publish(queue, entry(b"x-death", b"A" + table(b"I\0\0\0\1")), exchange="")
        for _ in range(5):
            raw.publish(queue, entry(b"trace", text(b"of another user")), exchange="")
        (message,) = _taken(raw, queue)
        raw.channel.basic_reject(message, requeue=False)

    def is_lost() -> bool:
        """Whether the queue was restarted without its messages, or could not be restarted at all."""
        try:
            with Raw(url) as raw:
                return bool(raw.channel.queue_declare(queue, passive=True).message_count == 0)
        except amqp.NotFound as error:
            return "crashed" in str(error)

    wait_for(is_lost, 60)
    _delete(url, queue)
