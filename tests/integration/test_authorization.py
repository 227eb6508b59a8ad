"""Who calls, who replies, who may call what: both ends keep to the rules, on a broker and without one."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jsonrpc_amqp import NOT_AUTHORISED, CallTimeout, Client, Server, ServerError, current_request
from jsonrpc_amqp.amqp.base import Delivery, Plan, Publish
from jsonrpc_amqp.amqp.memory import MemoryTransport
from jsonrpc_amqp.amqp.transport import connect_transport
from jsonrpc_amqp.client.call import WaitingCall

from ..tools import wait_for
from ..transport_tools import Recorder

TOKEN = "0123456789ab"
CALL = b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 7}'


def delivery(key: str, user: str | None, *, exchange: str = "jsonrpc", **more: Any) -> Delivery:
    return Delivery(1, 1, False, exchange, key, b"", user_id=user, **more)


# -- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        ["add"],
        "add",
        {"add": []},
        {"add": ""},
        {"add": [""]},
        {"add": [1]},
        {1: "alice"},
        {"a": None},
        {"a": 5},
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Server("memory://", "S", authorize=rule)


@pytest.mark.parametrize("users", ["", 5, [[]]])
def test_server_users_are_names(users: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"names|one name or several"):
        Client("memory://", "S", server_user=users)


@pytest.mark.parametrize("end", [Client, Server])
def test_a_user_has_a_name(end: Any) -> None:
    with pytest.raises(ValueError, match="not empty"):
        end("memory://", "S", user="")


def test_a_foreign_dispatcher_knows_no_methods() -> None:
    with pytest.raises(ValueError, match="authorize"):
        Server("memory://", "S", dispatcher=lambda body: body, authorize=lambda request: True)


@pytest.mark.parametrize("dialect", ["recipe2011", "rabbitmq-java"])
def test_other_lineages_cannot_be_verified(dialect: Any) -> None:
    more: dict[str, Any] = {"recipe_method": "add"} if dialect == "recipe2011" else {}
    with pytest.raises(ValueError, match="user_id"):
        Server("memory://", "S", dialect=dialect, verify_user=True, **more)


# -- both ends, on a broker and without one ---------------------------------------------------------------------


@pytest.fixture(params=["memory", "rabbitmq"])
def where(request: pytest.FixtureRequest, service: str) -> str:
    """Return the URL of a broker on which every user is guest."""
    return str(request.getfixturevalue("url")) if request.param == "rabbitmq" else f"memory://{service}"


@pytest.fixture
def stranger(where: str) -> Iterator[Recorder]:
    """A client that may publish anything."""
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
        Client(where, service, server_user="srv", timeout=1) as client,
    ):
        with pytest.raises(CallTimeout, match="answers were rejected so far; of the last: it is from user 'guest'"):
            client.call("whoami")
        assert client.stats()["rejected_replies"] == 1
    assert "its call goes on waiting" in caplog.text


def test_a_forged_reply_does_not_end_a_call(where: str, service: str, stranger: Recorder) -> None:
    """A message that has everything but the key of the reply; the genuine reply follows."""
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


def test_no_reply_is_taken_for_a_notification(service: str) -> None:
    """Not even a message with its number, before the broker has confirmed it."""
    where = f"memory://{service}"
    with Client(where, service, timeout=10) as client:
        requests = client._requests
        with Server(where, service):
            pass  # now there is a queue
        client.notify("x")
        call = client._make(WaitingCall, b"{}", {}, is_notification=True)
        call.number, call.sent = "99", True
        requests._pending.add(call)
        session = requests.life.session
        assert session is not None
        requests.on_deliveries(session, [delivery("x", None, correlation_id="99")])
        assert client.stats()["rejected_replies"] == 1
        assert "99" in requests._pending


@pytest.mark.threads_server
def test_replies_carry_the_user_that_is_given(service: str) -> None:
    """Where the URL does not name the user, as with certificates."""
    transport = MemoryTransport(service, user="CN=srv")
    transport_of_nobody = type("Anonymous", (MemoryTransport,), {"user": None})(service)
    with (
        Server(service=service, transport=transport, user="CN=srv", methods={"whoami": whoami}),
        Client(service=service, transport=transport_of_nobody, server_user="CN=srv", timeout=5) as client,
    ):
        assert client.call("whoami") is None


@pytest.mark.threads_server
def test_replies_need_not_carry_a_user(service: str) -> None:
    where = f"memory://{service}"
    transport_of_nobody = type("Anonymous", (MemoryTransport,), {"user": None})(service)
    with (
        Server(service=service, transport=transport_of_nobody, methods={"whoami": whoami}),
        Client(where, service, server_user="guest", timeout=1) as client,
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
