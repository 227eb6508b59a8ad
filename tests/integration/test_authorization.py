"""Who asks, who answers, who may call what: the rules, and that both ends keep to them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

from jsonrpc_amqp import NOT_AUTHORISED, CallTimeout, Client, Request, Server, ServerError, current_request
from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Delivery, Plan, Publish
from jsonrpc_amqp.amqp.memory import MemoryTransport
from jsonrpc_amqp.amqp.transport import connect_transport
from jsonrpc_amqp.client.pending import WaitingCall
from jsonrpc_amqp.context import NoEnvelope
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.wire.authorization import authorizer, users_of
from jsonrpc_amqp.wire.reply_checks import ReplyChecks
from jsonrpc_amqp.wire.sender_checks import refuse_sender

from ..tools import wait_for
from ..transport_tools import Recorder

TOKEN = "0123456789ab"
CALL = b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 7}'


def delivery(key: str, user: str | None, *, exchange: str = "jsonrpc", **more: Any) -> Delivery:
    return Delivery(1, 1, False, exchange, key, b"", user_id=user, **more)


def dead_letter_headers(name: bytes = b"\x07x-death") -> bytes:
    entry = name + b"A\0\0\0\0"
    return len(entry).to_bytes(4, "big") + entry


def request(method: str, user: str | None) -> Request:
    return Request(method, 1, False, NoEnvelope(user_id=user))


# -- who asks -------------------------------------------------------------------------------------------------

SERVED = [
    (f"S.request.alice-{TOKEN}.7", "alice"),
    (f"S.request.alice-{TOKEN}._", "alice"),
    (f"S.request.alice-{TOKEN}.-5", "alice"),
    (f"S.request.alice-{TOKEN}", "alice"),
    ("S.request", "alice"),
    (f"S.request.a%2Eb-{TOKEN}.7", "a.b"),
    (f"S.request.a-b-c-{TOKEN}.7", "a-b-c"),
    (f"S.request.CN%3Dalice%2CO%3DACME-{TOKEN}.7", "CN=alice,O=ACME"),
    (f"S.request.J%C3%BCrgen-{TOKEN}.7", "Jürgen"),
]
# Key, user, and whether the sender is told where there is no reply_to.
REFUSED = [
    (f"S.request.alice-{TOKEN}.7", None, False),
    (f"S.request.alice-{TOKEN}.7", "", False),
    (f"S.request.alice-{TOKEN}.7", "bob", False),
    (f"S.request.alice-{TOKEN}", "bob", False),
    (f"S.request.a.b-{TOKEN}.7", "a.b", False),
    (f"S.request.axb-{TOKEN}.7", "a.b", False),
    (f"S.request.ALICE-{TOKEN}.7", "alice", False),
    (f"S.request.alice-x-{TOKEN}.7", "alice", False),
    (f"S.request.alice-{TOKEN}.7.8", "alice", False),
    (f"S.request.alice-{TOKEN}.*", "alice", False),
    (f"S.request.alice-{TOKEN}.#", "alice", False),
    (f"S.request.alice-{TOKEN}.", "alice", False),
    (f"S.request.alice-{TOKEN[:-1]}.7", "alice", False),
    ("S.request.alice", "alice", False),
    ("S.request.q538", "alice", False),
    ("S.request.", "alice", False),
    ("S.requests", "alice", False),
    (f"T.request.alice-{TOKEN}.7", "alice", False),
    (f"S.response.alice-{TOKEN}.7", "alice", False),
    ("S_req", "alice", False),
    ("", "alice", False),
    ("S.request", None, False),
    (f"S.request._-{TOKEN}.7", None, True),
    ("S.request.alice\udcff", "alice\udcff", False),
    (f"S.request.{'x' * 65}-{TOKEN}.7", "x" * 65, False),
]


@pytest.mark.parametrize(("key", "user"), SERVED)
def test_who_names_himself_is_served(key: str, user: str) -> None:
    assert refuse_sender(delivery(key, user), service="S", exchange="jsonrpc") is None


@pytest.mark.parametrize(("key", "user", "told"), REFUSED)
def test_who_does_not_is_refused(key: str, user: str | None, told: bool) -> None:
    refusal = refuse_sender(delivery(key, user), service="S", exchange="jsonrpc")
    assert refusal is not None
    assert refusal.may_answer is told
    assert refusal.reason.isprintable()
    answered = refuse_sender(delivery(key, user, reply_to="my.replies"), service="S", exchange="jsonrpc")
    assert answered is not None
    assert answered.may_answer


@pytest.mark.parametrize("exchange", ["", "other", "amq.topic"])
def test_another_exchange_is_refused(exchange: str) -> None:
    got = delivery(f"S.request.alice-{TOKEN}.7", "alice", exchange=exchange)
    assert refuse_sender(got, service="S", exchange="jsonrpc") is not None


# -- who may call what ------------------------------------------------------------------------------------------

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


def test_only_true_lets_somebody_in(caplog: pytest.LogCaptureFixture) -> None:
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
        Server("memory://", "S", authorize=rule)


@pytest.mark.parametrize(("key", "user"), SERVED)
def test_a_request_that_fell_out_of_a_queue_is_not_served(key: str, user: str) -> None:
    got = delivery(key, user, raw_headers=dead_letter_headers())
    refusal = refuse_sender(got, service="S", exchange="jsonrpc")
    assert refusal is not None
    assert not refusal.may_answer


class Later:
    async def __call__(self, _request: Request) -> bool:
        return True


@pytest.mark.parametrize("rule", [Later(), Later().__call__, partial(Later.__call__, Later())])
def test_rules_that_are_async_are_refused(rule: Any) -> None:
    with pytest.raises(TypeError, match="async def"):
        Server("memory://", "S", authorize=rule)


@pytest.mark.parametrize("users", [None, 5])
def test_users_that_are_no_names_are_told(users: Any) -> None:
    with pytest.raises(TypeError, match="one name or several"):
        Server("memory://", "S", authorize={"a": users})
    with pytest.raises(TypeError, match="one name or several" if users else "names"):
        Client("memory://", "S", server_user=users or [[]])


@pytest.mark.parametrize("end", [Client, Server])
def test_a_user_has_a_name(end: Any) -> None:
    with pytest.raises(ValueError, match="not empty"):
        end("memory://", "S", user="")


def test_users() -> None:
    assert users_of("alice") == {"alice"}
    assert users_of(["alice", "bob"]) == {"alice", "bob"}
    with pytest.raises(ValueError, match="nobody"):
        Client("memory://", "S", server_user="")


def test_what_is_refused_does_not_tell_which_methods_there_are() -> None:
    dispatcher = Dispatcher({"add": lambda a, b: a + b}, authorize=lambda request: request.method == "open")
    answers = [dispatcher(CALL), dispatcher(CALL.replace(b"add", b"none"))]
    assert answers[0] == answers[1]
    assert json.loads(answers[0] or b"")["error"]["code"] == NOT_AUTHORISED
    assert (dispatcher.refusals, dispatcher.failures) == (2, 2)


def test_members_of_a_batch_are_authorised_one_by_one() -> None:
    ran = []
    dispatcher = Dispatcher({"open": lambda: 1, "shut": lambda: ran.append(1)}, authorize=lambda r: r.method == "open")
    members = [{"jsonrpc": "2.0", "method": name, "id": name} for name in ("open", "shut")]
    members.append({"jsonrpc": "2.0", "method": "shut"})
    opened, shut = json.loads(dispatcher(json.dumps(members).encode()) or b"")
    assert opened["result"] == 1
    assert (shut["error"]["code"], shut["id"]) == (NOT_AUTHORISED, "shut")
    assert ran == []
    assert dispatcher.refusals == 2


def test_a_foreign_dispatcher_knows_no_methods() -> None:
    with pytest.raises(ValueError, match="authorize"):
        Server("memory://", "S", dispatcher=lambda body: body, authorize=lambda request: True)


@pytest.mark.parametrize("dialect", ["recipe2011", "rabbitmq-java"])
def test_other_lineages_cannot_be_verified(dialect: Any) -> None:
    more: dict[str, Any] = {"recipe_method": "add"} if dialect == "recipe2011" else {}
    with pytest.raises(ValueError, match="user_id"):
        Server("memory://", "S", dialect=dialect, verify_user=True, **more)


# -- who answers ------------------------------------------------------------------------------------------------

MINE = f"S.response.alice-{TOKEN}.7"
DIRECT = f"{DIRECT_REPLY_TO}.g1h2AA5yZXBseUAxNDk5NTU3MgAADAUAAAAAawYyTg==.k"


@pytest.mark.parametrize(
    ("exchange", "wanted", "got_exchange", "got_key", "user", "headers", "flawed"),
    [
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", None, False),
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv2", None, False),
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", dead_letter_headers(b"\x05trace"), False),
        ("jsonrpc", MINE, "jsonrpc", MINE[:-1] + "8", "srv", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE + ".8", "srv", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE.replace("response", "request"), "srv", None, True),
        ("jsonrpc", MINE, "", MINE, "srv", None, True),
        ("jsonrpc", MINE, "eves", MINE, "srv", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE, "eve", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE, None, None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", dead_letter_headers(), True),
        # A table that cannot be read, and the header in it.
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", b"\xff\xff\xff\xff\x01x?\x07x-deathA", True),
        ("", "amq.gen-x", "", "amq.gen-x", "srv", None, False),
        ("", "amq.gen-x", "jsonrpc", "amq.gen-x", "srv", None, True),
        ("", "amq.gen-x", "", "amq.gen-y", "srv", None, True),
        ("", DIRECT_REPLY_TO, "", DIRECT, "srv", None, False),
        ("", DIRECT_REPLY_TO, "", DIRECT, "eve", None, True),
        ("", DIRECT_REPLY_TO, "jsonrpc", DIRECT, "srv", None, True),
    ],
)
def test_answers(
    exchange: str,
    wanted: str,
    got_exchange: str,
    got_key: str,
    user: str | None,
    headers: bytes | None,
    flawed: bool,
) -> None:
    got = delivery(got_key, user, exchange=got_exchange, raw_headers=headers)
    flaw = ReplyChecks(exchange, frozenset(["srv", "srv2"])).flaw(got, wanted)
    assert (flaw is not None) is flawed
    assert flaw is None or flaw.isprintable()
    if user in (None, "eve"):
        assert ReplyChecks(exchange, None).flaw(got, wanted) is None or got_exchange != exchange


# -- both ends, on a broker and without one ---------------------------------------------------------------------


@pytest.fixture(params=["memory", "rabbitmq"])
def where(request: pytest.FixtureRequest, service: str) -> str:
    """Give the URL of a broker, where everybody is guest."""
    return str(request.getfixturevalue("url")) if request.param == "rabbitmq" else f"memory://{service}"


@pytest.fixture
def stranger(where: str) -> Iterator[Recorder]:
    """Somebody who publishes what he likes."""
    end = Recorder(connect_transport(where), Plan(exchange="jsonrpc", reply_queue="exclusive"))
    yield end.start()
    end.close()


def whoami() -> str | None:
    return current_request().user_id


@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_an_honest_client_and_server(where: str, service: str, reply: Any) -> None:
    rules = {"whoami": "guest", "other": "somebody"}
    server = Server(where, service, methods={"whoami": whoami, "other": whoami}, verify_user=True, authorize=rules)
    with server, Client(where, service, reply=reply, server_user=["guest"], timeout=10) as client:
        assert client.call("whoami") == "guest"
        client.notify("whoami")
        with client.batch() as batch:
            future = batch.call("whoami")
        assert future.result() == "guest"
        with pytest.raises(ServerError) as caught:
            client.call("other")
        assert caught.value.code == NOT_AUTHORISED
        client.notify("other")
        wait_for(lambda: server.stats()["refused"] == 2)
        assert client.stats()["rejected_replies"] == 0


def test_requests_by_the_name_of_the_queue_are_refused(where: str, service: str) -> None:
    with (
        Server(where, service, methods={"whoami": whoami}, verify_user=True) as server,
        Client(where, service, route="queue", timeout=10) as client,
    ):
        with pytest.raises(ServerError) as caught:
            client.call("whoami")
        assert caught.value.code == NOT_AUTHORISED
        assert server.stats()["refused"] == 1


def test_a_request_in_the_name_of_another_is_dropped(
    where: str, service: str, stranger: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    ran = threading.Event()
    stranger.bind(f"{service}.response.#")
    with Server(where, service, methods={"add": lambda a, b: ran.set()}, verify_user=True) as server:
        key = f"{service}.request.alice-{TOKEN}.7"
        stranger.publish(Publish("jsonrpc", key, CALL, user_id="guest", correlation_id="7"))
        stranger.publish(Publish("jsonrpc", key, CALL, correlation_id="7"))
        wait_for(lambda: server.stats()["refused"] == 2)
        assert server.stats()["answered"] == 0
    assert not ran.is_set()
    assert stranger.deliveries == []
    assert "names another user than its sender, user 'guest'" in caplog.text
    assert "it has no user_id" in caplog.text


def test_a_server_of_another_user_is_not_believed(where: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        Server(where, service, methods={"whoami": whoami}),
        Client(where, service, server_user="srv", timeout=0.5) as client,
    ):
        with pytest.raises(CallTimeout, match="answers were rejected so far; of the last: it is from user 'guest'"):
            client.call("whoami")
        assert client.stats()["rejected_replies"] == 1
    assert "its call goes on waiting" in caplog.text


def test_a_forged_answer_does_not_end_a_call(where: str, service: str, stranger: Recorder) -> None:
    """One that has all but the key of the answer; the true one comes behind it."""
    seen: list[Delivery] = []
    go = threading.Event()

    def add(a: int, b: int) -> int:
        go.wait(10)
        return a + b

    stranger.on_delivery = lambda _session, got: seen.append(got)
    stranger.bind(f"{service}.request.#")
    with Server(where, service, methods={"add": add}), Client(where, service, timeout=10) as client:
        future = client.submit("add", [1, 2])
        wait_for(lambda: seen)
        forged = json.dumps({"jsonrpc": "2.0", "result": "forged", "id": 1}).encode()
        key = seen[0].routing_key.replace(".request.", ".response.")
        for wrong in (f"{key[:-1]}9", f"{key}.9", key[: key.rindex(".")]):
            stranger.publish(Publish("jsonrpc", wrong, forged, correlation_id="1"))
        wait_for(lambda: client.stats()["rejected_replies"] == 3)
        assert not future.done()
        go.set()
        assert future.result(10) == 3


def test_nobody_answers_a_notification(service: str) -> None:
    """Not even with its number, before the broker has confirmed it."""
    where = f"memory://{service}"
    with Client(where, service, timeout=10) as client:
        caller = client._requests
        with Server(where, service):
            pass  # now there is a queue
        client.notify("x")
        call = client._make(WaitingCall, b"{}", {}, unanswered=True)
        call.number, call.sent = "99", True
        caller._pending.add(call)
        caller.on_deliveries(caller._session, [delivery("x", None, correlation_id="99")])  # type: ignore[arg-type]
        assert client.stats()["rejected_replies"] == 1
        assert "99" in caller._pending


def test_answers_carry_the_user_that_is_given(service: str) -> None:
    """Where the URL does not tell it, as with certificates."""
    transport = MemoryTransport(service, user="CN=srv")
    transport_of_nobody = type("Anonymous", (MemoryTransport,), {"user": None})(service)
    with (
        Server(service=service, transport=transport, user="CN=srv", methods={"whoami": whoami}),
        Client(service=service, transport=transport_of_nobody, server_user="CN=srv", timeout=5) as client,
    ):
        assert client.call("whoami") is None


def test_answers_need_not_carry_a_user(service: str) -> None:
    where = f"memory://{service}"
    transport_of_nobody = type("Anonymous", (MemoryTransport,), {"user": None})(service)
    with (
        Server(service=service, transport=transport_of_nobody, methods={"whoami": whoami}),
        Client(where, service, server_user="guest", timeout=0.3) as client,
        pytest.raises(CallTimeout, match="a sender without a user_id"),
    ):
        client.call("whoami")


def test_refusals_are_logged_without_escapes(service: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with (
        Server(f"memory://{service}", service, authorize={"x": "x"}),
        Client(f"memory://{service}", service, timeout=5) as client,
        pytest.raises(ServerError),
    ):
        client.call("\x1b[31m\n")
    [line] = [record.getMessage() for record in caplog.records if "may not call" in record.getMessage()]
    assert line.isprintable()
