"""The marker ``fault`` and the fixture ``case``."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..broker import Broker
from .tally import Case, Record

FULL = os.environ.get("FAULTS") == "full"
TALLY = os.environ.get("FAULTS_TALLY")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "fault(key, *, fault, bound, mechanism, full, short, seconds, breath): see tests/faults"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("fault")
        if marker is not None:
            item.add_marker(pytest.mark.timeout(600 + _repeats(marker) * marker.kwargs["seconds"]))


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """The case of a test. Its record is written to the file ``FAULTS_TALLY``, if set, when the test has passed."""
    marker = request.node.get_closest_marker("fault")
    record = record_of(request.node)
    case = Case(record, _repeats(marker), breath=marker.kwargs.get("breath", 1.0) if FULL else 0.0)
    environment = _environment(request) if TALLY else ""  # a fixture cannot be asked for in a teardown
    yield case
    if getattr(request.node, "failed", True):  # the test failed, or never began
        return
    assert record.rounds == case.repeats, "the case did not go through its rounds"
    if TALLY:
        record.environment = environment
        record.write(Path(TALLY))


def record_of(item: pytest.Item) -> Record:
    """Return the record of a case before it has run: what its marker says."""
    marker = item.get_closest_marker("fault")
    assert marker is not None
    variant = f" ({item.callspec.id})" if hasattr(item, "callspec") else ""
    test = item.nodeid.partition("[")[0].removeprefix("tests/faults/")
    said = marker.kwargs
    return Record(marker.args[0] + variant, said["fault"] + variant, said["bound"], said["mechanism"], test)


def _repeats(marker: pytest.Mark) -> int:
    repeats: int = marker.kwargs["full" if FULL else "short"]
    return repeats


def _environment(request: pytest.FixtureRequest) -> str:
    broker: Broker = request.getfixturevalue("broker")
    return f"RabbitMQ {broker.version}, Python {platform.python_version()}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call":  # type: ignore[attr-defined]
        item.failed = report.failed  # type: ignore[attr-defined]
    return report
