"""Methods as attributes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from jsonrpc_amqp.client.proxy import Proxy


def proxy() -> Any:
    """Return a proxy whose calls return what would be called."""
    return Proxy(lambda method, params: (method, params), "")


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        (lambda made: made.now(), ("now", None)),
        (lambda made: made.time.zone.now(), ("time.zone.now", None)),
        (lambda made: made.add(1, 2), ("add", [1, 2])),
        (lambda made: made.add(a=1, b=2), ("add", {"a": 1, "b": 2})),
        (lambda made: made.add([]), ("add", [[]])),
        (lambda made: made._private.call(), ("_private.call", None)),
    ],
)
def test_calls(called: Any, expected: tuple[str, object]) -> None:
    assert called(proxy()) == expected


@pytest.mark.parametrize("name", ["self", "args", "kwargs", "name", "part", "call", "method", "params", "id"])
def test_any_parameter_has_any_name(name: str) -> None:
    assert proxy().link(**{name: "/a"}) == ("link", {name: "/a"})


def test_repr_names_the_method_and_calls_nothing() -> None:
    calls: list[str] = []
    made = Proxy(lambda method, _params: calls.append(method), "", "clock")
    assert repr(made) == "<Proxy of service 'clock'>"
    assert f"{made.time.now}" == "<Proxy 'time.now' of service 'clock'>"
    assert repr(proxy().time) == "<Proxy 'time'>"
    assert calls == []


def test_name_can_be_kept_and_extended() -> None:
    time = proxy().time
    assert (time.now(), time.zone(), time()) == (("time.now", None), ("time.zone", None), ("time", None))


def test_parameters_are_by_position_or_by_name() -> None:
    with pytest.raises(TypeError, match="by position or by name, not both"):
        proxy().add(1, b=2)


def test_proxy_itself_is_no_method() -> None:
    with pytest.raises(TypeError, match="called by a method's name"):
        proxy()()


@pytest.mark.parametrize("name", ["__len__", "__wrapped__", "__x"])
def test_names_of_protocols_are_no_methods(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(proxy().time, name)


def test_it_can_be_copied() -> None:
    assert copy.copy(proxy().time).now() == ("time.now", None)
