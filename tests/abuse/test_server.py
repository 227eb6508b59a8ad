"""A live server, and a corpus of hostile requests, while another user calls it all the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from jsonrpc_amqp import Client

from ..broker import Broker
from ..command import Program, serving
from ..tools import wait_for
from . import patched
from .corpus import MARK, REQUESTS, Case, Message
from .health import FREED, Patient
from .neighbour import Neighbour

SERVICE = "abuse"


class Abuser:
    """Publishes the messages of a case to the service."""

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url + "%2F"))
        self.replies = ""
        self._open()

    def _open(self) -> None:
        self.channel: Any = self.connection.channel()
        self.channel.confirm_delivery()

    def send(self, case: Case) -> None:
        for message in case:
            for _ in range(message.times):
                self._send(message)

    def _send(self, message: Message) -> None:
        tail = ".guest-0123456789ab.1" if message.tail is None else message.tail
        where = ("", f"{SERVICE}_req") if message.to_queue else ("jsonrpc", f"{SERVICE}.request{tail}")
        properties = {"content_type": "application/json", **message.properties}
        try:
            with patched.floats():
                self.channel.basic_publish(*where, message.body, pika.BasicProperties(**properties))
        except ChannelClosedByBroker:
            self._open()
            assert message.rejected is not False
        else:
            assert not message.rejected

    def close(self) -> None:
        self.connection.close()


@pytest.fixture(scope="module")
def served(broker: Broker) -> Iterator[Program]:
    # With one handler, the next call is answered after the hostile message was handled.
    options = ["--service", SERVICE, "--concurrency", "1"]
    with serving("tests.abuse.served:methods", *options, url=broker.url, env=FREED) as program:
        yield program


@pytest.fixture(scope="module")
def abuser(broker: Broker) -> Iterator[Abuser]:
    abuser = Abuser(broker.url)
    yield abuser
    abuser.close()


@pytest.fixture(scope="module")
def neighbour(other_user: str, served: Program) -> Iterator[Neighbour]:
    with (
        Client(other_user, SERVICE, timeout=30) as client,
        Neighbour(lambda name, number: client.call("visit", [name, number])) as neighbour,
    ):
        yield neighbour


@pytest.fixture(scope="module")
def patient(
    broker: Broker,
    served: Program,
    neighbour: Neighbour,
    abused: dict[str, dict[str, int]],
    slowed: dict[str, dict[str, float]],
) -> Iterator[Patient]:
    with Client(broker.url, SERVICE, timeout=30) as client:
        patient = Patient(
            served.pid, lambda: client.call("add", [1, 2]), neighbour.report, abused["server"], slowed["server"]
        )
        for _ in range(300):
            patient.call()
        yield patient


@pytest.mark.parametrize("name", REQUESTS)
def test_server(served: Program, patient: Patient, abuser: Abuser, name: str) -> None:
    assert not Path(MARK).exists()
    patient.examine(name, lambda: abuser.send(REQUESTS[name]))
    assert served.process.poll() is None
    assert served.output.count(": serving '") == 1, "it has lost its connection"
    assert not Path(MARK).exists(), "the corpus was run"


def test_what_it_logged_steers_no_terminal(served: Program, patient: Patient, abuser: Abuser) -> None:
    """It also logs fewer lines than there were messages."""
    assert patient.call() == 3
    assert [line for line in served.output.splitlines() if not line.isprintable()] == []
    before = len(served.output.splitlines())
    flood = [Message(b"[" + b'{"jsonrpc": "2.0", "method": "none"},' * 999 + b'{"jsonrpc": "2.0", "method": "none"}]')]
    abuser.send(flood * 3)
    assert patient.call() == 3
    wait_for(lambda: "more like it are left out" in served.output)
    assert len(served.output.splitlines()) - before < 1000


def test_it_ends_in_order(served: Program, neighbour: Neighbour) -> None:
    """Runs last."""
    neighbour.stop()
    neighbour.check()
    assert served.terminate() == 0
