"""The private node does what the other tests take for granted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest

from .. import broker as module
from ..broker import Broker, BrokerError

PERSISTENT = pika.BasicProperties(delivery_mode=2)


@contextmanager
def channel_of(broker: Broker) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def processes_of(folder: Path) -> set[int]:
    """Find by its environment what the node has started, whatever became of its parent."""
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={folder}/".encode() in environment.read_bytes():
                found.add(int(environment.parent.name))
        except OSError:  # ended meanwhile, or another program's
            continue
    return found


def test_takes_and_gives_a_message(broker: Broker, service: str) -> None:
    with channel_of(broker) as channel:
        channel.queue_declare(service, exclusive=True)
        channel.basic_publish("", service, b"hello")
        _, _, body = channel.basic_get(service, auto_ack=True)
    assert body == b"hello"


def test_ctl_and_list_speak_to_this_node(broker: Broker, service: str) -> None:
    with channel_of(broker) as channel:
        channel.queue_declare(service, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", service, b"one")
    rows = broker.list("queues", "name", "durable", "messages")
    assert {"name": service, "durable": True, "messages": 1} in rows
    broker.ctl("delete_queue", service)
    assert service not in broker.ctl("list_queues", "name")


def test_ctl_says_what_went_wrong(broker: Broker) -> None:
    with pytest.raises(
        BrokerError, match=r"rabbitmqctl delete_queue nowhere: Error:\s+(Queue not|No such queue was) found"
    ):
        broker.ctl("delete_queue", "nowhere")


@pytest.mark.parametrize("has_erl_call", [True, False])
def test_eval_returns_the_last_value(
    broker: Broker, service: str, monkeypatch: pytest.MonkeyPatch, has_erl_call: bool
) -> None:
    if not has_erl_call:
        monkeypatch.setattr(module, "_erl_call", lambda: None)
    assert broker.eval('X = "a b", {X, node()}.').replace(", ", ",") == f'{{"a b",{broker.name}}}'
    with pytest.raises(BrokerError, match="syntax error"):
        broker.eval("no no.")
    with pytest.raises(BrokerError, match="badarith"):
        broker.eval("1 / length([]).")
    broker.add_users(service, 'strange "\\user', password="ä")
    names = {row["user"] for row in broker.list("users")}
    assert {service, 'strange "\\user'} <= names
    pika.BlockingConnection(
        pika.ConnectionParameters(module.HOST, broker.port, credentials=pika.PlainCredentials(service, "ä"))
    ).close()
    broker.ctl("delete_user", 'strange "\\user')


def test_a_frozen_node_is_silent_until_it_thaws(broker: Broker) -> None:
    broker.freeze()
    try:
        with socket.create_connection((module.HOST, broker.port), timeout=0.5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            broker.thaw()
            connection.settimeout(10)
            assert connection.recv(1) == b"\x01"
    finally:
        broker.thaw()


def test_a_killed_node_comes_back_with_its_durable_queue(fragile: Broker, service: str) -> None:
    node = fragile
    with channel_of(node) as channel:
        channel.queue_declare(service, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", service, b"kept", PERSISTENT)
        url, pid = node.url, node.pid
        node.settle()
        node.kill()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            channel.basic_get(service)
    node.restart()
    assert (node.url, node.pid != pid) == (url, True)
    with channel_of(node) as channel:
        _, _, body = channel.basic_get(service, auto_ack=True)
    assert body == b"kept"


def test_start_gives_up_a_taken_port_and_stop_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    free_ports = module.free_ports
    with socket.create_server((module.HOST, 0)) as squatter:
        taken = squatter.getsockname()[1]
        port, dist_port = free_ports(2)
        choices = iter([[port, taken, dist_port], free_ports(3)])
        monkeypatch.setattr(module, "free_ports", lambda count: next(choices))
        node = Broker()
        node.start()
    try:
        assert node.port != port
        folder = node.folder
        assert folder is not None
        assert {node.pid, node.epmd_pid} <= processes_of(folder)
    finally:
        node.stop()
    assert processes_of(folder) == set()
    assert not folder.exists()


def test_a_node_that_cannot_boot_says_why_and_leaves_nothing() -> None:
    node = Broker(extra_config={"no_such_setting": "1"})
    with pytest.raises(BrokerError, match="no_such_setting"):
        node.start()
    assert node.folder is None


def test_without_rabbitmq_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEBIAN_SCRIPTS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match="RabbitMQ is not installed: run `apt-get install"):
        Broker().start()
