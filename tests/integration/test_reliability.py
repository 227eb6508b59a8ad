"""Calls end, connections come back, and nothing is left over: short forms, on brokers that are stopped and killed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pika
import pytest

from jsonrpc_amqp import (
    AccessRefused,
    Blocked,
    CallTimeout,
    Client,
    ClientClosed,
    ConnectionLost,
    NotConnected,
    Overloaded,
    Server,
    TopologyMismatch,
    TransportError,
    current_request,
)

from ..broker import Broker
from ..tools import wait_for


def eventually(call: Callable[[], Any], seconds: float = 15) -> Any:
    """Give the first result that is no transport error."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except TransportError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_broker_that_goes_and_comes_back(fragile: Broker, service: str, reply: Any) -> None:
    server = Server(fragile.url, service, methods={"add": lambda a, b: a + b, "nap": lambda s: time.sleep(s)})
    with server, Client(fragile.url, service, reply=reply, timeout=2) as client:
        assert client.call("add", [1, 2]) == 3
        in_flight = client.submit("nap", [1.5])
        wait_for(lambda: server.stats()["received"] == 2)
        fragile.kill()
        with pytest.raises(ConnectionLost) as lost:
            in_flight.result(5)
        assert lost.value.may_have_run
        began = time.monotonic()
        with pytest.raises(NotConnected) as caught:
            client.call("add", [1, 2], timeout=1)
        assert 0.9 < time.monotonic() - began < 1.9
        assert not caught.value.may_have_run
        with pytest.raises(NotConnected):
            client.notify("add", [1, 2], timeout=0.5)
        with pytest.raises(NotConnected):
            client.submit("add", [1, 2], timeout=0.5).result(2)
        fragile.restart()
        # The client first: its call waits in the queue until the server is back as well.
        assert eventually(lambda: client.call("add", [2, 3], timeout=10)) == 5
        assert server.stats()["received"] >= 3


def test_frozen_broker_is_noticed_and_close_is_bounded(fragile: Broker, service: str) -> None:
    server = Server(fragile.url, service, methods={"ok": lambda: 1}, heartbeat=2)
    server.start()
    client = Client(fragile.url, service, timeout=1, heartbeat=2).start()
    assert client.call("ok") == 1
    fragile.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(CallTimeout):
            client.call("ok", timeout=1)
        assert time.monotonic() - began < 3  # before the heartbeats show it, 4 s after the last
        waiting = client.submit("ok", timeout=30)
        with pytest.raises(ConnectionLost, match="silent"):
            waiting.result(8)
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 3
    finally:
        fragile.thaw()
    server.stop(grace=1)


def test_calls_park_while_an_alarm_blocks_and_go_on_after_it(fragile: Broker, service: str) -> None:
    with Server(fragile.url, service, methods={"ok": lambda: 1}), Client(fragile.url, service, timeout=10) as client:
        assert client.call("ok") == 1
        fragile.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        # The broker tells a connection that it is blocked when that next publishes.
        errors = []
        for _ in range(20):
            with pytest.raises((CallTimeout, Blocked)) as caught:
                client.call("ok", timeout=0.3)
            errors.append(caught.value)
            if isinstance(caught.value, Blocked):
                break
        assert isinstance(errors[-1], Blocked)
        assert not errors[-1].may_have_run
        parked = client.submit("ok", timeout=60)
        fragile.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        assert parked.result(60) == 1


def test_full_queue_that_rejects_is_overloaded_at_once(url: str, service: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare("jsonrpc", "topic", durable=True)
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(f"{service}_req", durable=True, arguments=limits)
    channel.queue_bind(f"{service}_req", "jsonrpc", f"{service}.request.#")
    with Client(url, service, confirm=True, timeout=10) as client:
        client.notify("fills.the.queue")
        began = time.monotonic()
        for _ in range(20):
            for form in (client.call, client.notify):
                with pytest.raises(Overloaded) as caught:
                    form("x")
                assert not caught.value.may_have_run
        assert time.monotonic() - began < 5
        assert client.stats()["connections_lost"] == 0
    channel.queue_delete(f"{service}_req")
    connection.close()


def test_servers_all_down_is_told(url: str, service: str) -> None:
    with Server(url, service, methods={"ok": lambda: 1}):
        pass
    with (
        Client(url, service) as client,
        pytest.raises(CallTimeout, match="0 consumers and 1 message ready: no server consumes from it now"),
    ):
        client.call("ok", timeout=1.5)


def test_request_queue_deleted_under_a_live_server(broker: Broker, service: str) -> None:
    with Server(broker.url, service, methods={"ok": lambda: 1}), Client(broker.url, service, timeout=2) as client:
        assert client.call("ok") == 1
        broker.ctl("delete_queue", f"{service}_req")
        assert eventually(lambda: client.call("ok")) == 1


def test_exchange_deleted_under_live_ends(broker: Broker, service: str) -> None:
    exchange = f"x-{service}"
    server = Server(broker.url, service, methods={"ok": lambda: 1}, exchange=exchange)
    with server, Client(broker.url, service, timeout=2, exchange=exchange) as client:
        assert client.call("ok") == 1
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        connection.channel().exchange_delete(exchange)
        connection.close()
        began = time.monotonic()
        with pytest.raises(TransportError):
            client.call("ok")
        assert time.monotonic() - began < 2.5
        # The client has declared the exchange anew; the server has, once it publishes or connects again.
        server.stop()
    with (
        Server(broker.url, service, methods={"ok": lambda: 2}, exchange=exchange),
        Client(broker.url, service, timeout=2, exchange=exchange) as client,
    ):
        assert client.call("ok") == 2


def test_refused_credentials_are_not_retried(url: str, service: str) -> None:
    wrong = url.replace("guest:guest", "guest:sentinel-pw")
    client = Client(wrong, service, timeout=10)
    began = time.monotonic()
    with pytest.raises(AccessRefused) as caught:
        client.call("x")
    with pytest.raises(AccessRefused):
        client.start()
    assert time.monotonic() - began < 5
    assert not caught.value.may_have_run
    client.close()
    with pytest.raises(AccessRefused):
        Server(wrong, service).start()


def test_password_appears_nowhere(url: str, fragile: Broker, service: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "sentinel-pa55"
    fragile.add_users("bob", password=secret)
    mine = fragile.url.replace("guest:guest", f"bob:{secret}")
    said = []
    server = Server(mine, service, methods={"ok": lambda: 1})
    client = Client(f"{mine};{mine}", service, timeout=1)
    with server, client:
        client.call("ok", timeout=60)
        said += [repr(server), repr(client), repr(client._requests), repr(vars(server)), repr(vars(client._requests))]
        fragile.kill()
        try:
            client.call("ok")
        except TransportError as exc:
            said += [repr(exc), str(exc), repr(exc.__cause__)]
    for bad in (mine.replace("amqp://", "ftp://"), mine.replace("@", "/@"), mine + "?heartbeat=" + secret):
        with pytest.raises(ValueError, match="URL") as caught:
            Client(bad, service)
        said.append(repr(caught.value))
    with pytest.raises(AccessRefused) as refused:
        Client(url.replace("guest:guest", f"bob:{secret}"), service).start()
    said += [repr(refused.value), repr(refused.value.__cause__)]
    assert secret not in caplog.text
    assert all(secret not in each for each in said), said


def test_handler_of_three_heartbeats_keeps_its_connection(url: str, service: str) -> None:
    def long() -> str:
        deadline = time.monotonic() + 3.3
        while time.monotonic() < deadline:
            sum(range(1000))
        return "done"

    server = Server(url, service, methods={"long": long}, heartbeat=1)
    with server, Client(url, service, heartbeat=1, timeout=10) as client:
        assert client.call("long") == "done"
        assert client.stats()["connections_lost"] == 0
        assert server.stats()["redelivered"] == 0


def test_what_was_not_sent_because_of_silence_is_sent_over_a_new_connection(url: str, service: str) -> None:
    """As after a pause of the process, when the broker's next heartbeat lies in the socket already."""
    with Server(url, service, methods={"add": lambda a, b: a + b}), Client(url, service, timeout=5) as client:
        assert client.call("add", [1, 2]) == 3
        connection: Any = client._requests._transport
        heartbeat = connection._session.heartbeat
        now, heartbeat.last_read = heartbeat.last_read, -1000.0
        future = client.submit("add", [2, 2])
        heartbeat.last_read = now
        assert future.result(5) == 4
        assert client.stats()["connections"] == 2


def test_no_request_is_acknowledged_whose_answer_was_not_sent(url: str, service: str) -> None:
    runs: list[bool] = []
    server = Server(url, service)
    connection: Any = server._consumer._transport

    @server.method
    def run() -> int:
        runs.append(current_request().redelivered)
        if len(runs) == 1:
            session = connection._session
            publish = session.publish

            def after_a_pause(*message: Any, **more: Any) -> bool:
                heartbeat = session.heartbeat
                now, heartbeat.last_read = heartbeat.last_read, -1000.0
                sent = publish(*message, **more)
                heartbeat.last_read = now
                return bool(sent)

            session.publish = after_a_pause
        return 5

    with server, Client(url, service, timeout=10) as client:
        assert client.call("run") == 5
    assert runs == [False, True]


def test_no_request_is_acknowledged_while_its_answer_is_held_back(broker: Broker, service: str) -> None:
    def unacknowledged() -> int:
        rows = broker.list("queues", "name", "messages_unacknowledged")
        return next(int(row["messages_unacknowledged"]) for row in rows if row["name"] == f"{service}_req")

    server = Server(broker.url, service, methods={"add": lambda a, b: a + b})
    with server, Client(broker.url, service, timeout=20) as client:
        connection: Any = server._consumer._transport
        session = connection._session
        session._publisher.pause(session.link.publisher_channel)
        answer = client.submit("add", [1, 2])
        wait_for(lambda: server.stats()["answered"] == 1)
        session.flush()
        assert unacknowledged() == 1
        assert not answer.done()
        publisher = session._publisher
        connection.post(lambda: publisher._resume(publisher._main, session.link.publisher_channel))
        assert answer.result(10) == 3
        wait_for(lambda: unacknowledged() == 0)


def test_forked_child_gets_a_typed_error(url: str, service: str) -> None:
    with Server(url, service, methods={"ok": lambda: 1}), Client(url, service, timeout=10) as client:
        assert client.call("ok") == 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                client.call("ok")
            except ClientClosed as exc:
                client.close()
                status = 0 if "process" in str(exc) else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert client.call("ok") == 1


@pytest.mark.parametrize("where", ["topic key", "reply queue"])
def test_answer_that_the_broker_refuses_costs_itself(fragile: Broker, service: str, where: str) -> None:
    # The server's user may write answers for alice only.
    user = f"srv-{service}"
    fragile.add_users(user)
    fragile.restrict_topics(user, r"^[a-z0-9]+\.response\.(guest|ok)", ".*")
    ran: list[int] = []

    def work(i: int) -> int:
        ran.append(i)
        time.sleep(0.02)
        return i

    url = fragile.url.replace("guest:guest", f"{user}:secret")
    with Server(url, service, methods={"work": work}) as server, Client(fragile.url, service, timeout=10) as client:
        connection = pika.BlockingConnection(pika.URLParameters(fragile.url))
        channel = connection.channel()
        futures = []
        for i in range(60):
            futures.append(client.submit("work", [i]))
            if i % 20 == 10:
                body = b'{"jsonrpc": "2.0", "method": "work", "params": [%d], "id": 1}' % (1000 + i)
                if where == "topic key":
                    channel.basic_publish("jsonrpc", f"{service}.request.mallory.q1", body)
                else:
                    properties = pika.BasicProperties(reply_to="no-such-queue")
                    channel.basic_publish("jsonrpc", f"{service}.request.mallory.q1", body, properties)
                channel.connection.process_data_events()
        assert [future.result(15) for future in futures] == list(range(60))
        wait_for(lambda: server.stats()["dropped_replies"] == 3)
        assert sorted(ran) == [*range(60), 1010, 1030, 1050]
        assert server.stats()["redelivered"] == 0
        connection.close()


def test_client_without_permission_for_one_service_keeps_the_others(fragile: Broker, service: str) -> None:
    user = f"eve-{service}"
    fragile.add_users(user)
    fragile.restrict_topics(user, rf"^{service}\.request", ".*")
    url = fragile.url.replace("guest:guest", f"{user}:secret")
    with (
        Server(fragile.url, service, methods={"nap": lambda s: time.sleep(s)}),
        Server(fragile.url, f"{service}-private", methods={"ok": lambda: 1}),
        Client(url, service, timeout=10) as client,
    ):
        running = client.submit("nap", [0.5])
        for form in (client.call, client.notify):
            with pytest.raises(AccessRefused) as caught:
                form("ok", service=f"{service}-private")
            assert not caught.value.may_have_run
        assert running.result(10) is None
        assert client.call("nap", [0]) is None
        assert client.stats()["connections_lost"] == 0


def test_handled_requests_are_not_sent_again_when_another_is_refused(fragile: Broker, service: str) -> None:
    user = f"eve-{service}"
    fragile.add_users(user)
    ran: list[int] = []
    other = f"{service}-other"
    with (
        Server(fragile.url, service, methods={"pay": ran.append}),
        Server(fragile.url, other, methods={"ok": lambda: 1}),
        Client(fragile.url.replace("guest:guest", f"{user}:secret"), service, timeout=10) as client,
    ):
        same = {"jsonrpc": "2.0", "method": "ok", "id": "same"}
        client.send(same, service=other)
        for i in range(20):
            client.call("pay", [i])
        # The key was good before: what the broker now says of it is not about the first message that had it.
        fragile.restrict_topics(user, rf"^{service}\.request", ".*")
        with pytest.raises(AccessRefused):
            client.send(same, service=other)
        client.call("pay", [20])
    assert ran == list(range(21))


def test_limit_that_passes_does_not_end_a_server(fragile: Broker, service: str) -> None:
    with Server(fragile.url, service, methods={"ok": lambda: 1}) as server:
        fragile.ctl("set_vhost_limits", '{"max-connections": 0}')
        fragile.ctl("close_all_connections", "test")
        wait_for(lambda: server.stats()["failed_attempts"] >= 2)
        fragile.ctl("set_vhost_limits", '{"max-connections": -1}')
        with Client(fragile.url, service, timeout=10) as client:
            assert client.call("ok") == 1


def test_failover_url(fragile: Broker, url: str, service: str) -> None:
    with Server(url, service, methods={"where": lambda: "second"}):
        server = Server(fragile.url, service, methods={"where": lambda: "first"})
        server.start()
        with Client(f"{fragile.url};{url}", service, timeout=5) as client:
            assert client.call("where") == "first"
            fragile.kill()
            assert eventually(lambda: client.call("where")) == "second"
        server.stop(grace=0.5)


def test_wrong_virtual_host_and_absent_broker(url: str, service: str) -> None:
    with pytest.raises(AccessRefused, match="virtual host"):
        Client(f"{url}nowhere", service).start(timeout=5)
    began = time.monotonic()
    with pytest.raises(NotConnected):
        Client("amqp://127.0.0.1:1/", service, reconnect=False).start(timeout=5)
    assert time.monotonic() - began < 2


def test_nothing_is_left_after_many_calls(broker: Broker, service: str) -> None:
    with Server(broker.url, service, methods={"add": lambda a, b: a + b}):
        queues, connections = names(broker, "queues"), names(broker, "connections")
        threads, files = threading.active_count(), open_files()
        for reply in ("topic", "direct"):
            client = Client(broker.url, service, reply=reply, timeout=20).start()
            with ThreadPoolExecutor(8) as pool:
                results = pool.map(lambda i, add=client.proxy.add: add(i, 1), range(5000))
                assert list(results) == [i + 1 for i in range(5000)]
            assert client.stats()["pending"] == 0
            client.close()
        # The server's connection may have a second thread now, which stands by.
        wait_for(lambda: threading.active_count() <= threads + 1)
        assert open_files() == files
        wait_for(lambda: names(broker, "connections") == connections)
        wait_for(lambda: names(broker, "queues") == queues)


def names(broker: Broker, kind: str) -> list[Any]:
    column = "name" if kind == "queues" else "pid"
    return sorted(str(row[column]) for row in broker.list(kind, column))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_process_ends_with_calls_in_flight(url: str, service: str) -> None:
    program = f"""
from jsonrpc_amqp import Client
client = Client({url!r}, {service!r}).start()
client.submit("never", timeout=None)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=10, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_topology_mismatch_of_the_exchange(url: str, service: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().exchange_declare(f"d-{service}", "direct", durable=True)
    with pytest.raises(TopologyMismatch):
        Client(url, service, exchange=f"d-{service}").start(timeout=10)
    connection.channel().exchange_delete(f"d-{service}")
    connection.close()
