"""``no_consumers="fail"``: a call that no server would take ends at once, and was not sent."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

import pika
import pytest

from jsonrpc_amqp import AsyncClient, CallTimeout, Client, NoConsumers, Server, TransportError, Unroutable

from ..broker import HOST, Broker
from ..proxy import Proxy
from ..tools import wait_for

# Seconds. Far below the deadline of a call, on a busy machine too.
AT_ONCE = 5.0
ADD = b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}'


class Adder(Protocol):
    def add(self, a: int, b: int) -> int: ...


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Give a URL."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


def adder(url: str, service: str, **options: Any) -> Server:
    return Server(url, service, methods={"add": lambda a, b: a + b}, **options)


@pytest.fixture
def stopped(place: str, service: str) -> Server:
    """Give a server that was here once, so that there is a queue."""
    with adder(place, service):
        pass
    return adder(place, service)


@pytest.fixture
def client(place: str, service: str, stopped: Server) -> Iterator[Client]:
    with Client(place, service, no_consumers="fail") as client:
        yield client


def end_of(client: Client) -> TransportError:
    """Return the error of a call."""
    with pytest.raises(TransportError) as caught:
        client.call("add", [1, 2], timeout=0.2)
    return caught.value


def batch(client: Client) -> object:
    with client.batch() as batch:
        batch.call("add", [1, 2])
        batch.notify("add", [1, 2])
    raise AssertionError("the block raises")


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda client: client.call("add", [1, 2]), id="call"),
        pytest.param(lambda client: client.submit("add", [1, 2]).result(), id="submit"),
        pytest.param(lambda client: client.proxy.add(1, 2), id="proxy"),
        pytest.param(lambda client: client.typed(Adder).add(1, 2), id="typed", marks=pytest.mark.threads_client),
        pytest.param(batch, id="batch"),
        pytest.param(lambda client: client.send({"jsonrpc": "2.0", "method": "add", "id": 1}), id="send"),
        pytest.param(lambda client: client.send_raw(ADD), id="send_raw"),
        pytest.param(lambda client: client.submit_raw(ADD).result(), id="submit_raw"),
    ],
)
def test_each_form_of_a_call_fails_at_once_and_unsent(
    client: Client, service: str, form: Callable[[Client], object]
) -> None:
    begin = time.monotonic()
    with pytest.raises(NoConsumers, match=f"queue '{service}_req' has no consumers. The call was not sent") as caught:
        form(client)
    assert time.monotonic() - begin < AT_ONCE
    assert not caught.value.may_have_run
    assert client.stats()["pending"] == 0


@pytest.mark.threads_client
def test_middleware_meets_the_error(client: Client) -> None:
    seen: list[type[BaseException]] = []

    def note(request: Any, call_next: Callable[[Any], Any]) -> Any:
        try:
            return call_next(request)
        except TransportError as exc:
            seen.append(type(exc))
            raise

    with pytest.raises(NoConsumers):
        client.with_options(middleware=[note]).call("add", [1, 2])
    assert seen == [NoConsumers]


def test_a_notification_waits_in_the_queue(client: Client, place: str, service: str) -> None:
    ran = threading.Event()
    client.notify("note", no_consumers="fail")
    with Server(place, service, methods={"note": ran.set}):
        assert ran.wait(10)


def test_a_server_that_has_started_is_called_at_once(client: Client, place: str, service: str) -> None:
    for _ in range(3):
        wait_for(lambda: type(end_of(client)) is NoConsumers)  # the reply that named a consumer serves for a second
        with adder(place, service):
            assert client.call("add", [1, 2]) == 3


def test_a_server_that_stops_is_noticed_within_a_second(client: Client, stopped: Server) -> None:
    with stopped:
        assert client.call("add", [1, 2]) == 3
    begin = time.monotonic()
    while type(end := end_of(client)) is not NoConsumers:
        assert type(end) is CallTimeout
        assert time.monotonic() - begin < 1.0 + AT_ONCE


def test_a_call_waits_where_it_says_so(client: Client, stopped: Server) -> None:
    future = client.submit("add", [1, 2], no_consumers="wait")
    with pytest.raises(CallTimeout, match="no server consumes from it now"):
        client.with_options(no_consumers="wait").call("add", [1, 2], timeout=1)
    with stopped:
        assert future.result(10) == 3


def test_retry_waits_for_a_server_that_restarts(client: Client, stopped: Server) -> None:
    futures = [client.submit("add", [1, each], retry="safe") for each in range(10)]
    wait_for(lambda: client.stats()["retries"] > 10)
    with stopped:
        assert [future.result(10) for future in futures] == list(range(1, 11))


def test_retry_ends_with_the_error(client: Client) -> None:
    with pytest.raises(NoConsumers, match=r"\(attempt \d+") as caught:
        client.call("add", [1, 2], retry="safe", timeout=2)
    assert not caught.value.may_have_run


def test_calls_that_are_made_together_share_an_answer(
    client: Client, stopped: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client._requests.life.session
    assert session is not None
    asked, inspect = [0], session.inspect

    def count(*args: Any) -> None:
        asked[0] += 1
        inspect(*args)

    monkeypatch.setattr(session, "inspect", count)
    with stopped:
        begin = time.monotonic()
        for _ in range(20):
            assert client.call("add", [1, 2]) == 3
        futures: list[Future[int]] = [client.submit("add", [1, each]) for each in range(200)]
        assert [future.result(10) for future in futures] == list(range(1, 201))
        assert 1 <= asked[0] <= 4 + (time.monotonic() - begin) / 0.25


def test_a_service_without_a_queue_is_unroutable(place: str, service: str) -> None:
    with Client(place, service, no_consumers="fail") as client:
        for _ in range(2):
            with pytest.raises(Unroutable):
                client.call("add", [1, 2])
        with adder(place, service):
            assert client.call("add", [1, 2]) == 3


@pytest.mark.parametrize("reply", ["queue", "direct"])
def test_a_queue_that_is_called_by_its_name(place: str, service: str, stopped: Server, reply: Any) -> None:
    with Client(place, queue=f"{service}_req", reply=reply, no_consumers="fail") as client:
        with pytest.raises(NoConsumers, match=f"queue '{service}_req' has no consumers"):
            client.call("add", [1, 2])
        with stopped:
            assert client.call("add", [1, 2]) == 3


def test_a_dialect(place: str, service: str) -> None:
    def server() -> Server:
        return Server(place, service, methods={"double": lambda n: 2 * n}, dialect="recipe2011", recipe_method="double")

    with server():
        pass
    with Client(place, service, dialect="recipe2011", no_consumers="fail") as client:
        with pytest.raises(NoConsumers):
            client.call("double", [2])
        with server():
            assert client.call("double", [2]) == 4


# -- RabbitMQ alone --------------------------------------------------------------------------------------------------


def test_a_queue_that_is_deleted_meanwhile(url: str, service: str) -> None:
    with adder(url, service):
        pass
    with Client(url, service, no_consumers="fail") as client:
        with pytest.raises(NoConsumers):
            client.call("add", [1, 2])
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            connection.channel().queue_delete(f"{service}_req")
        with pytest.raises(Unroutable):
            client.call("add", [1, 2])
        with adder(url, service):
            assert client.call("add", [1, 2]) == 3
        assert client.stats()["connections"] == 1


def test_a_user_without_any_permission_on_the_queue(
    broker: Broker, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    with adder(broker.url, service):
        pass
    broker.add_users(service)
    broker.ctl("set_permissions", service, r"^amq\.gen-.*", r"^(jsonrpc|amq\.gen-.*)$", r"^(jsonrpc|amq\.gen-.*)$")
    url = f"amqp://{service}:secret@{HOST}:{broker.port}"
    with Client(url, service, no_consumers="fail", declare=False) as client:
        with pytest.raises((NoConsumers, CallTimeout)) as caught:
            client.call("add", [1, 2], timeout=3)
        # RabbitMQ 4.2.6 and later refuse to tell: then the call is sent.
        is_refused = any("refused user" in each for each in caplog.messages)
        assert isinstance(caught.value, CallTimeout) == is_refused
        with adder(broker.url, service):
            assert client.call("add", [1, 2]) == 3


def test_a_broker_that_refuses_to_tell(url: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as owner:
        owner.channel().queue_declare(service, exclusive=True)  # others may publish to it, and not ask about it
        with Client(url, queue=service, no_consumers="fail", timeout=1) as client:
            for _ in range(2):
                with pytest.raises(CallTimeout) as caught:
                    client.call("add", [1, 2])
                assert caught.value.may_have_run
            assert client.stats()["connections"] == 1
    told = [each for each in caplog.messages if "calls of" in each]
    assert len(told) == 1
    assert 'as with no_consumers="wait"' in told[0]


def test_a_broker_that_is_silent(broker: Broker, service: str) -> None:
    with adder(broker.url, service), Proxy(broker.port) as network:
        url = f"amqp://guest:guest@{HOST}:{network.port}"
        with Client(url, service, no_consumers="fail") as client:
            assert client.call("add", [1, 2]) == 3
            network.delay(30)
            wait_for(lambda: not end_of(client).may_have_run)  # it waits for the reply that does not come
            begin = time.monotonic()
            with pytest.raises(CallTimeout) as caught:
                client.call("add", [1, 2], timeout=2)
            assert caught.value.may_have_run  # it was sent without
            assert time.monotonic() - begin < 2 + AT_ONCE


# -- in coroutines ---------------------------------------------------------------------------------------------------


def test_coroutines(place: str, service: str, stopped: Server) -> None:
    async def main() -> None:
        async with AsyncClient(place, service, no_consumers="fail") as client:
            begin = time.monotonic()
            with pytest.raises(NoConsumers):
                await client.call("add", [1, 2])
            with pytest.raises(NoConsumers):
                async with client.batch() as batch:
                    member = batch.call("add", [1, 2])
            assert isinstance(member.exception(), NoConsumers)
            calls = [client.submit("add", [1, each]) for each in range(100)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in ends} == {NoConsumers}
            assert time.monotonic() - begin < AT_ONCE
            again = client.submit("add", [1, 2], retry="safe")
            await asyncio.to_thread(stopped.start)
            assert await again == 3
            assert await asyncio.gather(*(client.call("add", [1, each]) for each in range(100))) == list(range(1, 101))
            await asyncio.to_thread(stopped.stop)

    asyncio.run(main())
