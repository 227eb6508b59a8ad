"""A short run of each target: its seeds, earlier findings, the hostile corpus, and some generated inputs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from pika.frame import Heartbeat, Method
from pika.spec import Connection

from jsonrpc_amqp import Client
from jsonrpc_amqp.amqp.deadline import Deadline

from ..abuse.corpus import BODIES
from . import peers
from .targets import TARGETS, seeds
from .with_hypothesis import inputs

# A file for each finding: TARGET-WHAT.
FOUND = sorted(Path(__file__).with_name("found").glob("*-*"))
SMALL = [body for body in BODIES.values() if len(body) < 200_000]

# They talk over sockets. Seconds: a busy machine is not to be taken for a step that takes too long.
SLOW = ("broker", "server")
PATIENCE = 60.0


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SLACK", PATIENCE)
    found = [path.read_bytes() for path in FOUND if path.name.startswith(f"{name}-")]
    for data in [*seeds(name), *(() if name in SLOW else SMALL), *found]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_some(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SLACK", PATIENCE)

    @settings(max_examples=20 if name in SLOW else 100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs(seeds(name)))
    def once(data: bytes) -> None:
        TARGETS[name](data)

    once()


def test_a_target_that_is_wrong_is_found() -> None:
    """The fuzzer can find a fault, so that finding none means something."""

    def once(data: bytes) -> None:
        assert b"two" not in data

    with pytest.raises(AssertionError):
        settings(max_examples=1000, deadline=None, database=None)(given(inputs(seeds("dispatch")))(once))()


def test_only_answers_extend_an_attempt_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other frames of a broker that answers nothing do not."""
    extended: list[object] = []
    by_others: list[int] = []
    monkeypatch.setattr(Deadline, "extend", lambda deadline: extended.append(deadline))

    def serve(wire: peers.Wire) -> None:
        for _ in range(4):  # until the login is over
            wire.answer()
        wire.send(Heartbeat().marshal() * 5 + Method(0, Connection.Unblocked()).marshal() * 5)
        time.sleep(0.2)
        by_others.append(len(extended))
        while True:
            wire.answer()

    listening = peers.Listening(serve)
    try:
        with Client(listening.url, "S", reconnect=False, connect_timeout=30) as client:
            client.start(60)
    finally:
        listening.close()
    assert by_others == [0]
    assert extended
