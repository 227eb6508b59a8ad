"""A short run of each target: its seeds, earlier findings, the hostile corpus, and some generated inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

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
