"""The steps of one request: what is published, how the message is settled, what is counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from jsonrpc_amqp import current_request
from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.dialects import Inbound, MalformedEnvelope
from jsonrpc_amqp.server.counters import Counters
from jsonrpc_amqp.server.isolation import CannotIsolate, KilledItsProcesses
from jsonrpc_amqp.server.job import Job
from jsonrpc_amqp.server.pipeline import Dispatchers, Pipeline, PipelineSettings
from jsonrpc_amqp.wire.reply_route import Route
from jsonrpc_amqp.wire.sender_checks import Refusal

from .fakes import EXCHANGE, QUEUE, SERVICE, FakeSession, job

NOW = time.monotonic()


class Bench:
    """A pipeline whose dispatchers return what is in ``replies``, and note what they were given in ``dispatched``."""

    def __init__(self, *, dialect: Any = None, refusal: Refusal | None = None, **settings: Any) -> None:
        self.session, self.counters = FakeSession(), Counters()
        self.replies: dict[str, bytes | None] = {"run": b"ran", "limit": b"at limit", "sender": b"refused"}
        run, at_limit, refuse = (partial(self._dispatch, name) for name in self.replies)
        self.dispatched: list[tuple[str, bytes]] = []
        self.on_dispatch: Callable[[], object] = lambda: None
        self.pipeline = Pipeline(
            PipelineSettings(
                **{
                    "service": SERVICE,
                    "exchange": EXCHANGE,
                    "queue": QUEUE,
                    "delivery_limit": 3,
                    "max_size": 1000,
                    **settings,
                }
            ),
            Dispatchers(run, at_limit, refuse),
            self.counters,
            dialect=dialect,
            verify_sender=None if refusal is None else lambda _delivery: refusal,
        )

    def _dispatch(self, name: str, body: bytes) -> bytes | None:
        self.dispatched.append((name, body))
        self.on_dispatch()
        return self.replies[name]

    def process(self, **message: Any) -> Job:
        request = job(self.session, **message)
        self.pipeline.process(request, NOW)
        return request

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.counters.snapshot().items() if count}

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.session.published]


def test_a_reply_acknowledges_its_request_in_the_same_step() -> None:
    bench = Bench(user="bob")
    bench.process(body=b"request", correlation_id="c-1")
    assert bench.dispatched == [("run", b"request")]
    assert bench.session.calls == [("publish", 1)]
    [message] = bench.session.published
    assert (message.exchange, message.routing_key, message.body) == (EXCHANGE, "S.response.c.7", b"ran")
    assert (message.correlation_id, message.user_id, message.expiration_ms) == ("c-1", "bob", None)
    assert bench.counts == {"answered": 1}


def test_the_deadline_limits_the_life_of_the_reply() -> None:
    bench = Bench()
    bench.process(deadline=time.monotonic() + 5)
    [message] = bench.session.published
    assert 4000 < (message.expiration_ms or 0) <= 5000


def test_what_has_no_reply_is_acknowledged() -> None:
    bench = Bench()
    bench.replies["run"] = None
    bench.process()
    assert bench.session.calls == [("ack", 1)]
    assert bench.counts == {}


def test_what_expired_is_not_run() -> None:
    bench = Bench()
    bench.process(deadline=NOW)
    assert bench.dispatched == []
    assert bench.session.calls == [("ack", 1)]
    assert bench.counts == {"expired": 1}


def test_what_was_acknowledged_early_is_not_once_more() -> None:
    bench = Bench()
    bench.on_dispatch = lambda: current_request().envelope.acknowledge()
    bench.process()
    assert bench.session.calls == [("ack", 1), ("flush",), ("publish",)]


def test_a_dead_letter_is_rejected_after_its_reply() -> None:
    bench = Bench()
    bench.on_dispatch = lambda: current_request().envelope.dead_letter()
    bench.process()
    assert bench.session.calls == [("publish",), ("reject", 1)]
    assert bench.counts == {"answered": 1, "dead_lettered": 1}


def test_a_handler_sees_its_request_and_only_while_it_runs() -> None:
    bench, seen = Bench(), []  # type: tuple[Bench, list[tuple[str, str | None]]]
    bench.on_dispatch = lambda: seen.append((current_request().routing_key, current_request().user_id))
    bench.process(user_id="alice")
    assert seen == [("S.request.c.7", "alice")]
    with pytest.raises(RuntimeError):
        current_request()


@pytest.mark.parametrize(("redeliveries", "dispatcher"), [(0, "run"), (2, "run"), (3, "limit"), (4, "limit")])
def test_what_reached_the_delivery_limit_is_not_run(redeliveries: int, dispatcher: str) -> None:
    bench = Bench()
    bench.process(redeliveries=redeliveries, redelivered=True)
    assert [name for name, _body in bench.dispatched] == [dispatcher]
    assert bench.counts == {"answered": 1, "redelivered": 1}


def test_without_a_limit_all_are_run() -> None:
    bench = Bench(delivery_limit=None)
    bench.process(redeliveries=100)
    assert [name for name, _body in bench.dispatched] == ["run"]


@pytest.mark.parametrize(("may_reply", "expected"), [(True, [("publish", 1)]), (False, [("ack", 1)])])
def test_a_sender_that_is_not_verified_is_refused(may_reply: bool, expected: list[tuple[Any, ...]]) -> None:
    bench = Bench(refusal=Refusal("it has no user_id", may_reply))
    bench.process()
    assert [name for name, _body in bench.dispatched] == (["sender"] if may_reply else [])
    assert bench.session.calls == expected
    assert bench.counts["refused"] == 1


def test_a_refused_sender_may_have_no_reply() -> None:
    bench = Bench(refusal=Refusal("it has no user_id", True))
    bench.replies["sender"] = None
    bench.process()
    assert bench.session.calls == [("ack", 1)]


def test_a_body_that_was_too_large_to_keep_has_an_error_for_a_reply() -> None:
    bench = Bench()
    bench.process(body=None, size=5000)
    assert bench.dispatched == []
    error = json.loads(bench.bodies[0])["error"]
    assert (error["code"], "5000 bytes" in error["data"]) == (-32600, True)


def test_a_reply_over_the_cap_becomes_an_error() -> None:
    bench = Bench(max_size=10)
    bench.replies["run"] = b"x" * 11
    bench.process()
    assert json.loads(bench.bodies[0])["error"]["data"] == "the answer has 11 bytes, over the cap of 10"
    assert bench.counts == {"answered": 1, "failed": 1}


def test_a_dispatcher_that_raises_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise SystemExit("secret")

    bench = Bench()
    bench.on_dispatch = fail
    bench.process()
    assert json.loads(bench.bodies[0])["error"] == {"code": -32603, "message": "Internal error"}
    assert bench.counts == {"answered": 1, "failed": 1}
    assert "the dispatcher raised" in caplog.text
    with pytest.raises(RuntimeError):
        current_request()


@pytest.mark.parametrize("reply_to", ["S_req", "other_dead", "amq.rabbitmq.reply-to.bogus"])
def test_a_reply_that_may_go_nowhere_is_dropped(reply_to: str, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.process(reply_to=reply_to)
    assert bench.session.calls == [("ack", 1)]
    assert bench.counts == {"dropped_replies": 1}
    assert "no way to reply" in caplog.text


def test_reply_to_can_be_narrowed() -> None:
    bench = Bench(may_reply_to=lambda queue: queue == "friend")
    bench.process(reply_to="friend")
    bench.process(reply_to="stranger", tag=2)
    assert [message.routing_key for message in bench.session.published] == ["friend"]
    assert bench.counts == {"answered": 1, "dropped_replies": 1}


def test_replies_to_a_lost_connection_are_counted() -> None:
    bench = Bench()
    bench.session.is_gone = True
    bench.process()
    assert bench.counts == {"dropped_replies": 1}


class Dialect:
    """Requests that begin with ``old:`` are of another lineage; of the rest, what is not JSON is malformed."""

    route: Route | None = None
    is_to_sender = False

    def problem(self) -> str | None:
        return None

    def read(self, delivery: Delivery, body: bytes) -> Inbound | None:
        if body.startswith(b"old:"):
            return Inbound(body.removeprefix(b"old:"), b"old:".__add__, self.route, "text/old", self.is_to_sender)
        if not body.startswith(b"{"):
            raise MalformedEnvelope("neither")
        return None


ALICE = "alice-0123456789ab.7"


@pytest.mark.parametrize(
    ("message", "user"),
    [
        ({"key": f"S.request.{ALICE}", "user_id": "alice"}, "srv"),
        ({"key": f"S.request.{ALICE}", "user_id": "eve"}, None),
        ({"key": f"S.request.{ALICE}"}, None),
        ({"key": "S.request.q538", "user_id": "alice"}, None),
        ({"key": "S_req", "reply_to": "my.replies"}, "srv"),
    ],
)
def test_with_a_dialect_a_reply_says_who_the_server_is_only_to_the_sender(
    message: dict[str, Any], user: str | None
) -> None:
    bench = Bench(dialect=Dialect(), user="srv")
    bench.process(body=b"{}", **message)
    [reply] = bench.session.published
    assert reply.user_id == user


@pytest.mark.parametrize("is_to_sender", [False, True])
def test_a_dialect_knows_whether_its_route_leads_to_the_sender(is_to_sender: bool) -> None:
    dialect = Dialect()
    dialect.route, dialect.is_to_sender = Route("X", "S.response.q1", True), is_to_sender
    bench = Bench(dialect=dialect, user="srv")
    bench.process(body=b"old:request", key=f"S.request.{ALICE}", user_id="alice")
    [reply] = bench.session.published
    assert reply.user_id == ("srv" if is_to_sender else None)


def test_a_dialect_translates_request_and_reply() -> None:
    bench = Bench(dialect=Dialect())
    bench.process(body=b"old:request")
    bench.process(body=b"{}")
    assert bench.dispatched == [("run", b"request"), ("run", b"{}")]
    assert [(message.body, message.content_type) for message in bench.session.published] == [
        (b"old:ran", "text/old"),
        (b"ran", "application/json"),
    ]


def test_a_dialect_may_say_where_replies_go() -> None:
    dialect = Dialect()
    dialect.route = Route("elsewhere", "key", False)
    bench = Bench(dialect=dialect)
    bench.process(body=b"old:request")
    [message] = bench.session.published
    assert (message.exchange, message.routing_key, message.mandatory) == ("elsewhere", "key", False)


def test_what_is_malformed_for_the_dialect_is_dropped() -> None:
    bench = Bench(dialect=Dialect())
    bench.process(body=b"junk")
    assert bench.dispatched == []
    assert bench.session.calls == [("ack", 1)]
    assert bench.counts == {"malformed": 1}


class FakeIsolation:
    """Suspects every request, and returns or raises what it was given."""

    def __init__(self, outcome: bytes | type[Exception] | None) -> None:
        self.outcome = outcome

    def suspects(self, job: Job, now: float) -> bool:
        return True

    def run(self, job: Job) -> bytes | None:
        if isinstance(self.outcome, type):
            raise self.outcome("it did")
        return self.outcome


def isolating(outcome: bytes | type[Exception] | None, **settings: Any) -> Bench:
    bench = Bench(**settings)
    bench.pipeline.isolate(FakeIsolation(outcome))  # type: ignore[arg-type]
    return bench


def test_a_suspected_request_is_run_elsewhere() -> None:
    bench = isolating(b"elsewhere")
    bench.process(redelivered=True)
    assert [each.body for each in bench.session.published] == [b"elsewhere"]
    assert bench.dispatched == []


def test_a_reply_from_elsewhere_is_within_the_cap() -> None:
    bench = isolating(b"x" * 1001)
    bench.process(redelivered=True)
    assert b"over the cap of 1000" in bench.session.published[0].body
    assert bench.counts["failed"] == 1


def test_what_killed_its_processes_is_answered_as_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    bench = isolating(KilledItsProcesses)
    bench.process(redelivered=True)
    assert [name for name, _ in bench.dispatched] == ["limit"]
    assert "it did, and is not run again" in caplog.text


def test_without_a_process_it_runs_here(caplog: pytest.LogCaptureFixture) -> None:
    bench = isolating(CannotIsolate)
    bench.process(redelivered=True)
    assert [name for name, _ in bench.dispatched] == ["run"]
    assert "no other can be started" in caplog.text


def test_at_the_limit_it_is_run_nowhere() -> None:
    bench = isolating(b"elsewhere")
    bench.process(redeliveries=3)
    assert [name for name, _ in bench.dispatched] == ["limit"]
