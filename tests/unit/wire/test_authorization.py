"""Who may call which method."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import nullcontext
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jsonrpc_amqp import Request
from jsonrpc_amqp.context import NoEnvelope
from jsonrpc_amqp.wire.authorization import authorizer, check_user, users_of


def request(method: str, user: str | None) -> Request:
    return Request(method, 1, False, NoEnvelope(user_id=user))


RULES = {"admin.open": "*", "admin.*": ["alice", "bob"], "log.write": "carol", "time.*": "*", "a[b].*": ["alice"]}

MAY = [
    ("admin.open", "carol", True),
    ("admin.stop", "alice", True),
    ("admin.stop", "bob", True),
    ("admin.stop", "carol", False),
    ("admin.", "alice", True),
    ("admin", "alice", False),
    ("ADMIN.stop", "alice", False),
    ("admin.stop\nnow", "alice", True),
    ("xadmin.stop", "alice", False),
    ("log.write", "carol", True),
    ("log.write", "c", False),
    ("log.writes", "carol", False),
    ("time.now", "anybody", True),
    ("time.now", None, False),
    ("time.now", "", False),
    ("timexnow", "alice", False),
    ("a[b].c", "alice", True),
    ("ab.c", "alice", False),
    ("none", "alice", False),
    ("none", "*", False),
]


@pytest.mark.parametrize(("method", "user", "may"), MAY)
def test_patterns(method: str, user: str | None, may: bool) -> None:
    authorize = authorizer(RULES)
    assert authorize is not None
    assert authorize(request(method, user)) is may


names = st.text(st.sampled_from("ab."), max_size=8)


@given(st.text(st.sampled_from("ab.*"), max_size=8), names)
@example("a*a", "a")
@example("*ab*ab*", "aab.ab")
@example("*", "")
def test_a_star_stands_for_any_characters(pattern: str, name: str) -> None:
    authorize = authorizer({pattern: "*"})
    assert authorize is not None
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name)
    assert authorize(request(name, "alice")) is (expected is not None)


@pytest.mark.parametrize("pattern", ["*.users.*.delete", "*a*a*a*a*b", "a*", "*a", "*a*"])
@pytest.mark.parametrize("unit", [".users.", "a", ".users.a.delet"])
def test_patterns_take_linear_time(pattern: str, unit: str) -> None:
    authorize = authorizer({pattern: "*"})
    assert authorize is not None
    before = time.process_time()
    authorize(request(unit * (1_000_000 // len(unit)), "alice"))
    assert time.process_time() - before < 2  # what is quadratic takes minutes


def test_a_rule_allows_a_call_only_by_returning_true(caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> bool:
        return True

    def fail(_request: Request) -> bool:
        raise SystemExit("\x1b[31m")

    def promise(_request: Request) -> Any:
        return later()

    for rule, may in ((lambda _: True, True), (lambda _: 1, False), (lambda _: None, False), (promise, False)):
        decide = authorizer(rule)  # type: ignore[arg-type]
        assert decide is not None
        with pytest.warns(RuntimeWarning, match="never awaited") if rule is promise else nullcontext():
            assert decide(request("add", "alice")) is may
    decide = authorizer(fail)
    assert decide is not None
    assert decide(request("add", "alice")) is False
    assert "authorize raised on a call of 'add'" in caplog.text


@pytest.mark.parametrize("rule", [["add"], "add", {"add": []}, {"add": ""}, {"add": [""]}, {"add": [1]}, {1: "alice"}])
def test_rules_that_make_no_sense_are_refused(rule: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        authorizer(rule)


class Later:
    async def __call__(self, _request: Request) -> bool:
        return True


@pytest.mark.parametrize("rule", [Later(), Later().__call__, partial(Later.__call__, Later())])
def test_rules_may_be_awaited(rule: Any) -> None:
    decide: Any = authorizer(rule)
    assert iscoroutinefunction(decide)
    assert asyncio.run(decide(request("add", "alice"))) is True


@pytest.mark.parametrize("result", [1, None, SystemExit(), ValueError("down")])
def test_a_rule_that_is_awaited_allows_a_call_only_by_returning_true(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def rule(_request: Request) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    decide: Any = authorizer(rule)
    assert asyncio.run(decide(request("add", "alice"))) is False
    assert ("authorize raised" in caplog.text) is isinstance(result, BaseException)


@pytest.mark.parametrize("users", [None, 5])
def test_users_that_are_no_names(users: Any) -> None:
    with pytest.raises(TypeError, match="one name or several"):
        authorizer({"a": users})
    with pytest.raises(TypeError, match="one name or several" if users else "names"):
        users_of(users or [[]])


def test_a_user_has_a_name() -> None:
    check_user(None)
    check_user("alice")
    with pytest.raises(ValueError, match="not empty"):
        check_user("")


def test_users() -> None:
    assert users_of("alice") == {"alice"}
    assert users_of(["alice", "bob"]) == {"alice", "bob"}
    for none in ("", [], [""]):
        with pytest.raises(ValueError, match="no user"):
            users_of(none)


def test_without_a_rule_there_is_nothing_to_ask() -> None:
    assert authorizer(None) is None
