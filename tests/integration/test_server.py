"""What a server does around its methods, on RabbitMQ and on memory://."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from typing import Any

import pika
import pytest

from jsonrpc_amqp import (
    CallTimeout,
    Client,
    ConnectionLost,
    InternalError,
    NotConnected,
    Server,
    TopologyMismatch,
    __version__,
    current_request,
)

from ..broker import Broker
from ..tools import wait_for

PLACES = ["memory", "rabbitmq"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return a URL."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


class Stuck:
    """A method that blocks until ``release`` is set; ``began`` says that it runs, which is later than "received"."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> None:
        self.began.set()
        self.release.wait(100)


def test_methods_of_a_mapping_and_of_the_decorator(place: str, service: str) -> None:
    server = Server(place, service, methods={"one": lambda: 1})
    server.method("two")(lambda: 2)
    with server, Client(place, service) as client:
        assert (client.call("one"), client.call("two")) == (1, 2)


def test_other_dispatcher_stands_in(place: str, service: str) -> None:
    def shout(body: bytes) -> bytes | None:
        request = json.loads(body)
        return json.dumps({"jsonrpc": "2.0", "result": request["method"].upper(), "id": request["id"]}).encode()

    server = Server(place, service, dispatcher=shout)
    with pytest.raises(TypeError, match="dispatcher"):
        server.method("x")
    with server, Client(place, service) as client:
        assert client.call("hello") == "HELLO"


def test_other_dispatcher_that_raises_does_not_end_the_server(place: str, service: str) -> None:
    calls = []

    def broken(body: bytes) -> bytes | None:
        calls.append(body)
        if len(calls) == 1:
            raise SystemExit("no")
        return json.dumps({"jsonrpc": "2.0", "result": 1, "id": json.loads(body)["id"]}).encode()

    with Server(place, service, dispatcher=broken) as server, Client(place, service) as client:
        with pytest.raises(InternalError):
            client.call("x")
        assert client.call("x") == 1
        assert server.stats()["failed"] == 1


@pytest.mark.parametrize("reply", ["text", 5, ["x"], {}, object()], ids=lambda reply: type(reply).__name__)
def test_other_dispatcher_that_returns_no_bytes(
    place: str, service: str, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    replies = [reply, bytearray(b'{"jsonrpc": "2.0", "result": 1, "id": null}')]
    with (
        Server(place, service, dispatcher=lambda _body: replies.pop(0)) as server,
        Client(place, service, timeout=20) as client,
    ):
        with pytest.raises(InternalError):
            client.call("x")
        assert f"not {type(reply).__name__}" in caplog.text
        assert client.send_raw(b'{"jsonrpc": "2.0", "method": "x", "id": null}') is not None
        assert server.stats()["failed"] == 1


def test_a_server_that_drains_begins_nothing_and_gives_it_back(place: str, service: str) -> None:
    with Client(place, service, timeout=20) as client:
        with Server(place, service, methods={"who": lambda: "first"}) as server:
            assert client.call("who") == "first"
            server.drain()
            left = client.submit("who")
            wait_for(lambda: server.stats()["received"] == 2)
            assert not left.done()
        with Server(place, service, methods={"who": lambda: "second"}):
            assert left.result(20) == "second"


def test_exceptions_are_logged_and_not_sent(place: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    def leak() -> None:
        raise ValueError("password=hunter2")

    server = Server(place, service, methods={"leak": leak})
    with server, Client(place, service) as client, pytest.raises(InternalError) as caught:
        client.call("leak")
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" in caplog.text


def test_expose_errors_sends_the_text(place: str, service: str) -> None:
    def leak() -> None:
        raise ValueError("on purpose")

    with Server(place, service, methods={"leak": leak}, expose_errors=True), Client(place, service) as client:
        with pytest.raises(InternalError) as caught:
            client.call("leak")
        assert caught.value.data == "on purpose"


def test_result_over_the_cap_is_an_error_of_that_call(place: str, service: str) -> None:
    server = Server(place, service, methods={"big": lambda n: "x" * n}, max_size=10_000)
    with server, Client(place, service) as client:
        with pytest.raises(InternalError, match="10000"):
            client.call("big", [20_000])
        assert client.call("big", [5_000]) == "x" * 5_000


def test_request_over_the_cap_has_a_reply(place: str, service: str) -> None:
    with Server(place, service, methods={"size": len}, max_size=10_000), Client(place, service) as client:
        reply = client.send_raw(
            json.dumps({"jsonrpc": "2.0", "method": "size", "params": ["x" * 300_000], "id": 1}).encode()
        )
        assert reply is not None
        assert json.loads(reply)["error"]["code"] == -32600
        assert client.call("size", ["abc"]) == 3


def test_request_that_expires_in_the_prefetch_buffer_is_skipped(place: str, service: str) -> None:
    ran = []

    def nap(seconds: float) -> None:
        ran.append(seconds)
        time.sleep(seconds)

    with Server(place, service, methods={"nap": nap}, concurrency=1) as server, Client(place, service) as client:
        slow = client.submit("nap", [0.8])
        with pytest.raises(CallTimeout):
            client.call("nap", [0.1], timeout=0.3)
        slow.result(5)
        wait_for(lambda: server.stats()["expired"] == 1)
        assert ran == [0.8]


def test_stop_finishes_what_runs_and_gives_back_the_rest(place: str, service: str) -> None:
    ran: list[tuple[int, int, bool]] = []

    def worker(number: int) -> Server:
        def work(i: int) -> int:
            ran.append((number, i, current_request().redelivered))
            time.sleep(0.05)
            return i

        return Server(place, service, methods={"work": work}, concurrency=2)

    first, second = worker(1), worker(2)
    with second, Client(place, service, timeout=20) as client:
        first.start()
        futures = [client.submit("work", [i]) for i in range(60)]
        wait_for(lambda: any(number == 1 for number, _, _ in ran))
        began = time.monotonic()
        assert first.stop(grace=5)
        assert time.monotonic() - began < 2
        assert [future.result(20) for future in futures] == list(range(60))
        assert sorted(i for _, i, _ in ran) == list(range(60))
        assert any(redelivered for number, _, redelivered in ran if number == 2)


def test_stop_gives_up_after_its_grace(place: str, service: str) -> None:
    stuck = Stuck()
    server = Server(place, service, methods={"stuck": stuck})
    server.start()
    with Client(place, service) as client:
        client.submit("stuck")
        assert stuck.began.wait(10)
        began = time.monotonic()
        assert not server.stop(grace=0.3)
        assert time.monotonic() - began < 2.5
    stuck.release.set()


@pytest.mark.threads_server
def test_stop_inside_a_handler_is_an_error(place: str, service: str) -> None:
    server = Server(place, service)
    server.method("stop")(lambda: server.stop())
    with server, Client(place, service) as client, pytest.raises(InternalError):
        client.call("stop")
    assert server.stop()


def test_server_of_another_process_is_left_alone(place: str, service: str) -> None:
    with Server(place, service, methods={"ok": lambda: 1}) as server, Client(place, service) as client:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                server.stop()
                server.start()
            except RuntimeError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.call("ok") == 1


def test_misspelt_notification_is_logged(place: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    with Server(place, service) as server, Client(place, service) as client:
        client.notify("misspelt")
        wait_for(lambda: server.stats()["failed"] == 1)
    assert "'misspelt' ended in: 'Method not found'" in caplog.text


def test_numbers_of_stats(place: str, service: str) -> None:
    with Server(place, service, methods={"ok": lambda: 1}) as server, Client(place, service) as client:
        client.call("ok")
        client.notify("ok")
        with pytest.raises(Exception, match="Method not found"):
            client.call("absent")
        expected = {"received": 3, "answered": 2, "failed": 1, "expired": 0, "redelivered": 0}
        # A reply arrives before it is counted.
        wait_for(lambda: expected.items() <= server.stats().items(), told=lambda: str(server.stats()))


def test_queue_type_that_differs_is_a_topology_mismatch(place: str, service: str) -> None:
    with (
        Server(place, service, queue_type="classic"),
        pytest.raises(TopologyMismatch, match="type"),
    ):
        Server(place, service, queue_type="quorum").start(timeout=10)


def test_declare_false_wants_what_is_there(place: str, service: str) -> None:
    with pytest.raises(TopologyMismatch):
        Server(place, service, declare=False).start(timeout=10)
    with Server(place, service, methods={"who": lambda: 1}):
        pass
    with Server(place, service, declare=False, methods={"who": lambda: 2}), Client(place, service) as client:
        assert client.call("who") == 2


class Raw:
    """A client that speaks bare AMQP."""

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.replies: list[tuple[Any, Any, bytes]] = []
        self.channel.basic_consume(
            self.queue,
            lambda _c, method, properties, body: self.replies.append((method, properties, body)),
            auto_ack=True,
        )

    def reply(self, seconds: float = 10) -> tuple[Any, Any, bytes]:
        deadline = time.monotonic() + seconds
        while not self.replies and time.monotonic() < deadline:
            self.connection.process_data_events(time_limit=0.05)
        return self.replies.pop(0)


@pytest.fixture
def raw(url: str) -> Any:
    raw = Raw(url)
    yield raw
    raw.connection.close()


CALL = b'{"jsonrpc": "2.0", "method": "ok", "id": "q538"}'


def test_reply_properties(raw: Raw, url: str, service: str) -> None:
    with Server(url, service, methods={"ok": lambda: 1}):
        raw.channel.queue_bind(raw.queue, "jsonrpc", f"{service}.response.q538")
        raw.channel.basic_publish(
            "jsonrpc", f"{service}.request.q538", CALL, pika.BasicProperties(correlation_id="c-1", expiration="5000")
        )
        method, properties, body = raw.reply()
    assert json.loads(body) == {"jsonrpc": "2.0", "result": 1, "id": "q538"}
    assert (method.exchange, method.routing_key) == ("jsonrpc", f"{service}.response.q538")
    assert (properties.content_type, properties.content_encoding) == ("application/json", None)
    assert (properties.correlation_id, properties.reply_to, properties.delivery_mode) == ("c-1", None, 1)


def test_reply_expires_with_its_request(raw: Raw, url: str, service: str) -> None:
    with Server(url, service, methods={"ok": lambda: 1}):
        properties = pika.BasicProperties(reply_to=raw.queue, headers={"timeout-ms": 5000})
        raw.channel.basic_publish("", f"{service}_req", CALL, properties)
        _, properties, _ = raw.reply()
    assert 0 < int(properties.expiration) <= 5000


BROKEN_DIRECT = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAxNDk5NTU3MgAADAUAAAAAawYy.key"


@pytest.mark.parametrize("reply_to", ["{service}_req", "other_req", "amq.topic", "x" * 255, BROKEN_DIRECT])
def test_reply_to_that_is_not_used(
    raw: Raw, url: str, service: str, reply_to: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Server(url, service, methods={"ok": lambda: 1}) as server:
        properties = pika.BasicProperties(reply_to=reply_to.format(service=service))
        raw.channel.basic_publish("", f"{service}_req", CALL, properties)
        wait_for(lambda: server.stats()["dropped_replies"] == 1)
        # Once, and the server goes on.
        raw.channel.basic_publish("", f"{service}_req", CALL, pika.BasicProperties(reply_to=raw.queue))
        assert json.loads(raw.reply()[2])["result"] == 1
        assert server.stats()["received"] == 2
        assert server.stats()["connections"] == 1


def test_reply_to_allowed_narrows(raw: Raw, url: str, service: str) -> None:
    with Server(url, service, methods={"ok": lambda: 1}, reply_to_allowed=r"friends\..*") as server:
        raw.channel.basic_publish("", f"{service}_req", CALL, pika.BasicProperties(reply_to=raw.queue))
        wait_for(lambda: server.stats()["dropped_replies"] == 1)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[" * 10_000, b'{"jsonrpc": "2.0"', b"NaN", b'"\xff"', "{}".encode("utf-16")]
)
def test_hostile_bytes_have_a_reply_and_are_acknowledged(raw: Raw, url: str, service: str, body: bytes) -> None:
    with Server(url, service, methods={"ok": lambda: 1}) as server:
        for content_type, encoding in [("application/json", None), ("application/x-python-serialize", "bzip2")]:
            properties = pika.BasicProperties(
                reply_to=raw.queue, content_type=content_type, content_encoding=encoding, correlation_id="h"
            )
            raw.channel.basic_publish("", f"{service}_req", body, properties)
            reply = json.loads(raw.reply()[2])
            assert (reply["error"]["code"], reply["id"]) == (-32700, None)
        wait_for(lambda: raw.channel.queue_declare(f"{service}_req", passive=True).method.message_count == 0)
        assert server.stats()["received"] == 2


def test_draining_server_does_not_consume_over_a_new_connection(url: str, broker: Any, service: str) -> None:
    stuck = Stuck()
    server = Server(url, service, methods={"stuck": stuck, "ok": lambda: 1}).start()
    with Client(url, service, timeout=60) as client:
        waiting = client.submit("stuck")
        assert stuck.began.wait(10)
        stopper = threading.Thread(target=server.stop, args=[100])
        stopper.start()
        broker.ctl("close_all_connections", "test")
        with pytest.raises(ConnectionLost):
            waiting.result(70)
        wait_for(lambda: server.stats()["connections"] == 2)
        with pytest.raises(CallTimeout, match="0 consumers"):
            client.call("ok", timeout=1)
        # What ran when the connection was lost is redelivered, but not to this one.
        assert server.stats()["received"] == 1
        stuck.release.set()
        stopper.join(10)
        assert not stopper.is_alive()


def test_block_that_cannot_start_leaves_nothing_behind(service: str) -> None:
    threads = threading.active_count()
    with pytest.raises(NotConnected), Client("amqp://127.0.0.1:1/", service, timeout=0.2):
        pass
    with pytest.raises(TopologyMismatch), Server(f"memory://{service}", service, declare=False):
        pass
    wait_for(lambda: threading.active_count() <= threads)  # fewer, if one of an earlier test has ended meanwhile


def test_a_reply_during_a_burst_does_not_wait_for_the_next_method(url: str, service: str) -> None:
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    with Server(url, service, methods={"nap": nap}, concurrency=1), Client(url, service, timeout=20) as client:
        for _ in range(3):
            quick = [client.submit("nap", [0]) for _ in range(300)]
            slow = client.submit("nap", [1])
            for each in quick:
                each.result(10)
            assert not slow.done()
            slow.result(10)


def test_a_second_queue_of_the_service_is_told(place: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    """Both are bound to the exchange: each call runs twice, and nothing else says so."""
    runs: list[str] = []

    def other() -> Server:
        return Server(place, service, methods={"run": lambda: runs.append("other")}, queue=f"{service}_other")

    with other():
        assert "there is queue" not in caplog.text
    usual = Server(place, service, methods={"run": lambda: runs.append("usual")})
    with usual, other(), Client(place, service, timeout=10) as client:
        wait_for(lambda: f"beside queue '{service}_other' of this server there is queue '{service}_req'" in caplog.text)
        client.call("run")
        wait_for(lambda: sorted(runs) == ["other", "usual"])


def test_connections_say_what_they_are(broker: Broker, service: str) -> None:
    with Server(broker.url, service), Client(broker.url, service) as client:
        client.start()
        listed = [str(each["client_properties"]) for each in broker.list("connections", "client_properties")]
    process = f"{socket.gethostname()}:{os.getpid()}:"
    for name in (f"jsonrpc-amqp server {service} {process}", f"jsonrpc-amqp client {process}"):
        told = next(each for each in listed if name in each)
        assert f"'version', 'longstr', '{__version__}'" in told
        assert "Python 3." in told
        assert "py-amqp" not in told
