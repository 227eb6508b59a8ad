"""A live client, and a corpus of hostile replies, while another thread calls through it all the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from jsonrpc_amqp import Server

from ..broker import Broker
from ..command import ROOT
from . import patched
from .corpus import CAP, REPLIES, Case, Message
from .health import FREED, Patient
from .neighbour import Report
from .served import methods

EVIL, GOOD = "evil", "good"
# The results and errors that a call may end in.
ENDS = {"result", "RemoteError", "ServerError", "MalformedReply", "CallTimeout"}


class EvilServer:
    """Sends the messages of ``case`` as the reply to each request."""

    def __init__(self, url: str) -> None:
        self.case: Case = []
        self._url = url
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> EvilServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._thread.join(10)

    def _run(self) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url + "%2F"))
        self._channel: Any = self._connection.channel()
        self._channel.exchange_declare("jsonrpc", "topic", durable=True)
        self._channel.queue_declare(f"{EVIL}_req", exclusive=True)
        self._channel.queue_bind(f"{EVIL}_req", "jsonrpc", f"{EVIL}.request.#")
        self._channel.basic_consume(f"{EVIL}_req", self._reply, auto_ack=True)
        self._ready.set()
        self._channel.start_consuming()
        self._connection.close()

    def _reply(self, _channel: object, method: Any, properties: Any, body: bytes) -> None:
        key = method.routing_key.replace(".request.", ".response.")
        id = str(json.loads(body)["id"]).encode()
        for message in self.case:
            for _ in range(message.times):
                self._publish(message, key, id, properties.correlation_id)

    def _publish(self, message: Message, key: str, id: bytes, number: str) -> None:
        properties = {"content_type": "application/json", "correlation_id": number, **message.properties}
        where = ("", key) if message.to_queue else ("jsonrpc", key + (message.tail or ""))
        body = message.body.replace(b"ID", id) if len(message.body) < 1 << 20 else message.body
        with patched.floats():
            self._channel.basic_publish(*where, body, pika.BasicProperties(**properties))


class Victim:
    """The process of the client under test."""

    def __init__(self, url: str) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by the fixture)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.victim", url, EVIL, GOOD],
            cwd=ROOT,
            env={**os.environ, **FREED},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def call(self, line: str) -> tuple[str, dict[str, int], Report]:
        """Have it call; return how that ended, its counters, and what became of the calls of its other thread."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        ended, stats, report = json.loads(self.process.stdout.readline())
        return ended, stats, Report(*report)

    def good(self) -> None:
        ended, _stats, _report = self.call("good")
        assert ended == "result"

    def report(self) -> Report:
        return self.call("report")[2]

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    @property
    def logged(self) -> str:
        self.errors.seek(0)
        return self.errors.read()


@pytest.fixture(scope="module")
def evil(broker: Broker) -> Iterator[EvilServer]:
    with EvilServer(broker.url) as evil, Server(broker.url, GOOD, methods=methods):
        yield evil


@pytest.fixture(scope="module")
def victim(other_user: str, evil: EvilServer) -> Iterator[Victim]:
    victim = Victim(other_user)
    yield victim
    victim.close()
    victim.errors.close()


@pytest.fixture(scope="module")
def patient(victim: Victim, abused: dict[str, dict[str, int]], slowed: dict[str, dict[str, float]]) -> Patient:
    patient = Patient(victim.process.pid, victim.good, victim.report, abused["client"], slowed["client"])
    for _ in range(300):
        patient.call()
    return patient


@pytest.mark.parametrize("name", REPLIES)
def test_client(evil: EvilServer, victim: Victim, patient: Patient, name: str) -> None:
    evil.case = REPLIES[name]
    ends = []
    patient.examine(name, lambda: ends.append(victim.call("evil")))
    [(ended, stats, _report)] = ends
    # None of these is a valid response; the largest may arrive too late.
    invalid = name.startswith(("body:", "bomb,", "content type"))
    late = {"CallTimeout"} if len(REPLIES[name][0].body) >= CAP else set()
    assert ended in ({"MalformedReply"} | late if invalid else ENDS)
    assert stats["connections"] == 1, "it has lost its connection"


def test_what_it_logged_steers_no_terminal(victim: Victim, patient: Patient) -> None:
    """It also exits normally."""
    patient.call()
    assert victim.close() == 0
    assert "rejected an answer" in victim.logged
    assert [line for line in victim.logged.splitlines() if not line.isprintable()] == []
