"""The arguments of ``Client``, which users write, and the forms of a call."""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import pytest

from jsonrpc_amqp import Client
from jsonrpc_amqp.amqp.base import Publish
from jsonrpc_amqp.client.call_options import Options
from jsonrpc_amqp.errors import (
    CallTimeout,
    ClientClosed,
    InvalidName,
    MessageTooLarge,
    NotConnected,
    TooManyPending,
)
from jsonrpc_amqp.options import ConnectionOptions
from jsonrpc_amqp.runtime.base import Runtime
from jsonrpc_amqp.runtime.threads import ThreadsRuntime

from .fakes import SERVICE, FakeSession, FakeTransport, reply_to

RAW = b'{"jsonrpc": "2.0", "method": "add", "id": 1}'
KEYWORDS: dict[str, Any] = {
    "timeout": 30.0,
    "exchange": "jsonrpc",
    "reply": None,
    "route": None,
    "queue": None,
    "confirm": False,
    "no_consumers": "wait",
    "declare": True,
    "dialect": None,
    "user": None,
    "server_user": None,
    "tls": None,
    "heartbeat": 10.0,
    "connect_timeout": 5.0,
    "reconnect": True,
    "connection_name": None,
    "errors": (),
    "middleware": (),
    "max_size": 16 << 20,
    "max_pending": 100_000,
    "transport": None,
}


def connected(**options: Any) -> tuple[Client, FakeSession]:
    """Return a client that is connected, and its session, whose calls each test replies to."""
    client = Client("memory://x", SERVICE, transport=FakeTransport(), **options)
    session = FakeSession()
    client._requests.plan()
    client._requests.on_open(session)
    return client, session


def respond(client: Client, session: FakeSession, message: Publish, result: object) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": json.loads(message.body)["id"], "result": result}).encode()
    client._requests.on_deliveries(session, [reply_to(message, body)])


# -- the constructor ------------------------------------------------------------------------------------------------


def test_keywords_and_their_defaults() -> None:
    _self, url, service, *others = inspect.signature(Client.__init__).parameters.values()
    assert (url.name, url.default, service.name, service.default) == ("url", "amqp://", "service", None)
    assert {each.name: each.default for each in others} == KEYWORDS
    assert [each.name for each in others] == list(KEYWORDS)
    assert {each.kind for each in others} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"service": "a b"}, InvalidName, "each word between the dots"),
        ({"service": "amqp://u:secret@h"}, InvalidName, "this is a broker's URL"),
        ({"user": ""}, ValueError, "user is the name of an AMQP user"),
        ({"user": "u" * 65}, InvalidName, "65 bytes in percent-encoding"),
        ({"timeout": -1}, ValueError, "a timeout is a number of seconds, 0 or more"),
        ({"timeout": math.nan}, ValueError, "a timeout is a number of seconds, 0 or more"),
        ({"timeout": "5"}, ValueError, "a timeout is a number of seconds, 0 or more"),
        ({"no_consumers": "raise"}, ValueError, "no_consumers is 'wait' or 'fail', not 'raise'"),
        ({"max_pending": 0}, ValueError, "max_pending is at least 1"),
        ({"route": "direct"}, ValueError, "route is 'topic' or 'queue'"),
        ({"reply": "fast"}, ValueError, "reply is 'topic', 'queue' or 'direct'"),
        ({"queue": "q", "route": "topic"}, ValueError, "leave out route"),
        ({"queue": "q", "reply": "topic"}, ValueError, "has no key to answer to"),
        ({"dialect": "soap"}, ValueError, "dialect is 'recipe2011' or None, not 'soap'"),
        ({"dialect": "recipe2011", "reply": "direct"}, ValueError, "is spoken over the exchange only"),
        ({"dialect": "recipe2011", "queue": "q"}, ValueError, "is spoken over the exchange only"),
        ({"server_user": ""}, ValueError, "users are one name or several"),
        ({"server_user": 5}, TypeError, "users are one name or several"),
        ({"url": "http://x"}, ValueError, "a broker URL starts with amqp://"),
        ({"url": 5}, TypeError, "a broker's URL is a string, not int"),
        ({"url": "memory://x;amqp://u:secret@h"}, ValueError, "memory:// stands alone"),
        ({"url": " memory://x;memory://y"}, ValueError, "memory:// stands alone"),
        ({"url": "amqp://u:secret@h:0"}, ValueError, "the port in the broker URL is 0"),
        *(({"heartbeat": each}, ValueError, "heartbeat") for each in (0.5, -1, 65536, math.inf, math.nan)),
        *(({"connect_timeout": each}, ValueError, "connect_timeout") for each in (0, -1, 1e7, math.inf, math.nan)),
    ],
)
def test_what_is_refused_when_it_is_made(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        Client(**{"url": "memory://x", "service": SERVICE, **options})
    assert "secret" not in str(caught.value)


def test_transport_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ConnectionOptions]] = []

    def connect(url: str, options: ConnectionOptions, runtime: Runtime) -> FakeTransport:
        assert isinstance(runtime, ThreadsRuntime)
        seen.append((url, options))
        return FakeTransport()

    monkeypatch.setattr("jsonrpc_amqp.client.base.connect_transport", connect)
    tls = {"ca_certs": "f"}
    Client("amqp://x", SERVICE, heartbeat=20, connect_timeout=2, reconnect=False, max_size=5000, tls=tls)
    Client("amqp://x", SERVICE, connection_name="mine")
    name = seen[0][1].name
    assert name.startswith("jsonrpc-amqp client ")
    assert seen == [
        ("amqp://x", ConnectionOptions(name, 20, 2, False, 5000, tls)),
        ("amqp://x", ConnectionOptions("mine")),
    ]


def test_nothing_is_connected_until_it_is_used() -> None:
    transport = FakeTransport()
    client = Client("memory://x", SERVICE, transport=transport)
    assert transport.asked == []
    client.submit("now")
    assert transport.asked == ["start"]
    client.close()


def test_repr_shows_no_password() -> None:
    client = Client("amqp://user:secret@host/v", SERVICE, transport=FakeTransport())
    assert repr(client).startswith("<Client of 'S' at amqp://")
    assert "secret" not in repr(client)


@pytest.mark.parametrize(
    ("options", "exchange", "reply_queue"),
    [
        ({}, "jsonrpc", "exclusive"),
        ({"exchange": "x", "reply": "direct"}, "x", "direct"),
        ({"route": "queue"}, "", "exclusive"),
    ],
)
def test_plan_follows_the_arguments(options: dict[str, Any], exchange: str, reply_queue: str) -> None:
    client = Client("memory://x", SERVICE, transport=FakeTransport(), confirm=True, declare=False, **options)
    plan = client._requests.plan()
    assert (plan.exchange, plan.reply_queue, plan.confirm, plan.declare) == (exchange, reply_queue, True, False)
    assert plan.queue is None


@pytest.mark.parametrize(("user", "expected"), [(None, "guest"), ("other", "other")])
def test_user_of_the_url_unless_it_is_given(user: str | None, expected: str) -> None:
    client, session = connected(user=user)
    client.submit("now")
    assert session.published[0].user_id == expected


def test_queue_needs_no_service() -> None:
    client = Client("memory://x", queue="any queue", transport=FakeTransport())
    session = FakeSession()
    client._requests.plan()
    client._requests.on_open(session)
    client.submit("now")
    assert (session.published[0].exchange, session.published[0].routing_key) == ("", "any queue")
    assert repr(client).startswith("<Client of 'any queue'")


# -- the block ------------------------------------------------------------------------------------------------------


def test_block_that_cannot_connect_leaves_nothing_open() -> None:
    transport = FakeTransport()
    client = Client("memory://x", SERVICE, transport=transport, timeout=0.0)
    with pytest.raises(NotConnected):
        client.__enter__()
    assert transport.asked == ["start", "close"]


def test_block_closes() -> None:
    transport = FakeTransport()
    transport.on_start = lambda listener: listener.on_open(FakeSession())
    with Client("memory://x", SERVICE, transport=transport) as client:
        future = client.with_options(service="T").submit("now")
    assert isinstance(future.exception(0), ClientClosed)
    assert transport.asked == ["start", "close"]
    with pytest.raises(ClientClosed):
        client.submit("now")


# -- forms of a call ------------------------------------------------------------------------------------------------


def test_call_waits_for_its_result() -> None:
    client, session = connected()
    transport = client._requests._transport
    assert isinstance(transport, FakeTransport)
    transport.runtime.on_drive = lambda: respond(client, session, session.published[0], 3)
    assert client.call("add", [1, 2]) == 3
    assert json.loads(session.published[0].body) == {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}
    assert client.stats()["pending"] == 0


def test_call_ends_by_itself_where_the_leader_is_stuck() -> None:
    client, _session = connected(timeout=0.01)
    with pytest.raises(CallTimeout, match=r"^no answer from 'S' within 0.01 s: "):
        client.call("now")
    assert client.stats()["pending"] == 0


def test_call_that_is_interrupted_is_not_waited_for_any_more() -> None:
    client, _session = connected()
    transport = client._requests._transport
    assert isinstance(transport, FakeTransport)

    def interrupt() -> None:
        raise KeyboardInterrupt

    transport.runtime.on_drive = interrupt
    with pytest.raises(KeyboardInterrupt):
        client.call("now")
    assert client.stats()["pending"] == 0


@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("form", ["submit", "submit_raw", "submit_notify", "call"])
def test_interrupt_amid_the_sending_of_a_call_takes_it_back(form: str, timeout: float | None) -> None:
    client, session = connected(timeout=timeout)
    session.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        getattr(client, form)(RAW if form == "submit_raw" else "add")
    assert client.stats()["pending"] == 0


def test_cancelled_future_frees_the_place_of_its_call() -> None:
    client = Client("memory://x", SERVICE, transport=FakeTransport(), max_pending=3)
    submits: list[Callable[[], Future[Any]]] = [
        lambda: client.submit("add"),
        lambda: client.submit_raw(RAW),
        lambda: client.submit_notify("log"),
    ]
    for _ in range(3):
        futures = [submit() for submit in submits]
        with pytest.raises(TooManyPending, match="cancel some"):
            client.submit("add")
        assert all(future.cancel() for future in futures)
        assert wait(futures, timeout=10).not_done == set()
        assert client.stats()["pending"] == 0
    assert client.stats()["cancelled"] == 9
    client.close()


def test_place_of_a_cancelled_call_is_free_in_callbacks() -> None:
    client = Client("memory://x", SERVICE, transport=FakeTransport(), max_pending=1)
    again: list[Future[Any]] = []
    future = client.submit("add")
    future.add_done_callback(lambda _done: again.append(client.submit("add")))
    assert future.cancel()
    assert client.stats()["pending"] == 1
    client.close()
    assert isinstance(again[0].exception(0), ClientClosed)


def test_batch_whose_calls_are_all_cancelled_is_not_waited_for() -> None:
    client, session = connected()
    transport = client._requests._transport
    assert isinstance(transport, FakeTransport)
    futures: list[Future[Any]] = []
    transport.runtime.on_drive = lambda: [future.cancel() for future in futures]
    with client.batch() as batch:
        futures += [batch.call("add"), batch.call("add")]
    assert all(future.cancelled() for future in futures)
    assert len(session.published) == 1
    counts = client.stats()
    assert (counts["cancelled"], counts["pending"]) == (1, 0)


def test_submitted_call_has_its_result_later() -> None:
    client, session = connected()
    future = client.submit("now")
    assert not future.done()
    respond(client, session, session.published[0], "noon")
    assert future.result(0) == "noon"


def test_notification_is_done_once_it_is_confirmed() -> None:
    client, session = connected()
    future = client.submit_notify("log", {"a": 1})
    assert not future.done()
    session.confirms[0](None)
    assert future.result(0) is None
    assert json.loads(session.published[0].body) == {"jsonrpc": "2.0", "method": "log", "params": {"a": 1}}


def test_bytes_are_sent_as_they_are() -> None:
    client, session = connected()
    future = client.submit_raw(b'{ "jsonrpc": "2.0", "method": "now", "id": "x" }')
    (message,) = session.published
    assert message.body == b'{ "jsonrpc": "2.0", "method": "now", "id": "x" }'
    client._requests.on_deliveries(session, [reply_to(message, b" [1]")])
    assert future.result(0) == b" [1]"


@pytest.mark.parametrize(
    ("default", "option", "asks"),
    [("wait", {}, False), ("wait", "fail", True), ("fail", {}, True), ("fail", "wait", False)],
)
def test_which_calls_need_consumers(default: Any, option: Any, asks: bool) -> None:
    client, session = connected(no_consumers=default)
    options: Options = {"no_consumers": option} if option else {}
    client.submit("a", **options)
    client.with_options(**options).submit_raw(RAW)
    assert (len(session.inspections), len(session.published)) == ((1, 0) if asks else (0, 2))
    session.published.clear()
    client.submit_notify("b", **options)
    client.submit_raw(b'{"jsonrpc": "2.0", "method": "c"}', **options)
    assert len(session.published) == 2


@pytest.mark.parametrize("form", ["send", "send_raw", "submit_raw"])
def test_what_forms_do_not_take(form: str) -> None:
    client, session = connected()
    with pytest.raises(TypeError, match=form):
        getattr(client, form)("text")
    assert session.published == []


def test_persistent_and_other_options_follow_the_form() -> None:
    client, session = connected()
    client.submit("a")
    client.submit("b", persistent=True, headers={"h": 1})
    client.submit_notify("c")
    client.submit_notify("d", persistent=False)
    assert [message.persistent for message in session.published] == [False, True, True, False]
    assert [message.headers for message in session.published] == [None, {"h": 1}, None, None]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"timout": 1}, TypeError, "unknown option timout; known: headers, no_consumers, persistent, retry"),
        ({"timeout": -1}, ValueError, "a timeout is a number of seconds"),
        ({"no_consumers": True}, ValueError, "no_consumers is 'wait' or 'fail', not True"),
        ({"retry": "always"}, ValueError, "retry is 'safe', 'idempotent' or None, not 'always'"),
        ({"service": "a b"}, InvalidName, "each word between the dots"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    client, session = connected()
    for use in (client.submit, client.submit_notify):
        with pytest.raises(error, match=text):
            use("now", **options)
    with pytest.raises(error, match=text):
        client.with_options(**options).submit("now")
    assert session.published == []


def test_service_must_be_named_where_the_client_has_none() -> None:
    client = Client("memory://x", transport=FakeTransport())
    with pytest.raises(TypeError, match="which service"):
        client.submit("now")
    with pytest.raises(TypeError, match="which service"):
        client.submit("now", service="")
    client.submit("now", service=SERVICE)
    client.close()


def test_with_options_has_defaults_of_its_own() -> None:
    client, session = connected()
    other = client.with_options(headers={"h": 1}, timeout=None)
    other.submit("now")
    client.submit("now")
    assert [(message.headers, message.timeout_ms is None) for message in session.published] == [
        ({"h": 1}, True),
        (None, False),
    ]


def test_infinite_timeout_is_none() -> None:
    client, session = connected(timeout=math.inf)
    client.submit("now")
    assert session.published[0].timeout_ms is None


def test_sizes_and_numbers_of_calls_are_bounded() -> None:
    client, session = connected(max_size=100, max_pending=1)
    with pytest.raises(MessageTooLarge, match="over the cap of 100; it was not sent"):
        client.submit("echo", ["x" * 100])
    client.submit("now")
    with pytest.raises(TooManyPending):
        client.submit("now")
    assert len(session.published) == 1


def test_persistent_calls_with_direct_replies_need_confirms() -> None:
    client, session = connected(reply="direct")
    with pytest.raises(ValueError, match=r"persistent calls need Client\(confirm=True\)"):
        client.submit("now", persistent=True)
    client.submit_notify("log")
    assert len(session.published) == 1


def test_leader_may_not_wait_for_a_call() -> None:
    client, session = connected()
    transport = client._requests._transport
    assert isinstance(transport, FakeTransport)
    transport.is_leader = True
    with pytest.raises(RuntimeError, match=r"Use submit\(\) in it"):
        client.call("now")
    assert session.published == []


@pytest.mark.parametrize("how", [pickle.dumps, copy.deepcopy])
def test_what_cannot_go_to_another_process_says_so(how: Callable[[Any], Any]) -> None:
    """A pool of processes pickles what it is given to call, such as the method of a client."""
    client, _session = connected()
    for what in (client, client.call, client.proxy.time.now, client.with_options(timeout=1)):
        with pytest.raises(TypeError, match="since their connections belong to this process: make one"):
            how(what)
    assert copy.copy(client).submit("now") is not None
