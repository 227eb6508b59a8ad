"""The forms of a call, on RabbitMQ with topic and direct replies, and on memory://."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import jsonrpcclient
import pika
import pytest
from jsonrpcserver import JsonRpcError

from jsonrpc_amqp import (
    CallTimeout,
    Client,
    ClientClosed,
    EncodeError,
    InvalidName,
    InvalidParams,
    MalformedReply,
    MessageTooLarge,
    MethodNotFound,
    RemoteError,
    Server,
    TooManyPending,
    Unroutable,
    current_request,
)

from ..error_codes import CLASSES_BY_CODE

PLACES = ["memory-topic", "memory-direct", "rabbitmq-topic", "rabbitmq-queue", "rabbitmq-direct"]


class Notes:
    """What notifications left behind."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self._changed = threading.Condition()

    def add(self, line: Any) -> None:
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.lines) >= count, 10), self.lines
            return self.lines


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, service: str) -> tuple[str, Any]:
    """Give a URL and how answers come there."""
    kind, reply = request.param.split("-")
    return (f"memory://{service}" if kind == "memory" else request.getfixturevalue("url")), reply


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def server(place: tuple[str, Any], service: str, notes: Notes) -> Iterator[Server]:
    server = Server(place[0], service)

    @server.method
    def add(a: int, b: int) -> int:
        return a + b

    @server.method("log.write")
    def write(line: Any) -> None:
        notes.add(line)

    @server.method
    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return "rested"

    @server.method
    def fail(code: int) -> None:
        raise JsonRpcError(code, "as asked", {"why": "test"})

    @server.method
    def echo(*args: Any) -> Any:
        return list(args)

    @server.method
    def link(**self: Any) -> dict[str, Any]:
        return self

    @server.method("asynchronous.link")
    async def link_later(**self: Any) -> dict[str, Any]:
        return self

    @server.method
    def about() -> dict[str, Any]:
        request = current_request()
        return {
            "id": request.id,
            "method": request.method,
            "service": request.service,
            "routing_key": request.routing_key,
            "headers": dict(request.headers),
            "user_id": request.user_id,
            "redelivered": request.redelivered,
            "remaining": request.remaining,
        }

    with server:
        yield server


@pytest.fixture
def client(place: tuple[str, Any], service: str, server: Server) -> Iterator[Client]:
    with Client(place[0], service, reply=place[1], timeout=10) as client:
        yield client


def test_call_by_position_by_name_and_without_params(client: Client) -> None:
    assert client.call("add", [1, 2]) == 3
    assert client.call("add", (1, 2)) == 3
    assert client.call("add", {"a": 1, "b": 2}) == 3
    assert client.call("echo") == []


def test_proxy(client: Client, notes: Notes) -> None:
    assert client.proxy.add(1, 2) == 3
    assert client.proxy.add(a=1, b=2) == 3
    client.proxy.log.write("through the proxy")
    assert notes.lines == ["through the proxy"]
    with pytest.raises(TypeError, match="not both"):
        client.proxy.add(1, b=2)
    with pytest.raises(AttributeError):
        client.proxy.__wrapped__  # noqa: B018


def test_proxy_passes_parameters_of_any_name(client: Client) -> None:
    names = ("self", "args", "kwargs", "name", "method", "params", "id", "service", "timeout", "call")
    params = {name: f"/{name}" for name in names}
    assert client.proxy.link(**params) == client.proxy.asynchronous.link(**params) == params
    assert client.proxy.asynchronous.link(self="/a") == {"self": "/a"}


def test_params_are_any_sequence_or_mapping(client: Client, notes: Notes) -> None:
    for params in (range(2), deque([0, 1]), UserList([0, 1])):
        assert client.call("echo", params) == client.submit("echo", params).result(10) == [0, 1]
    for named in (MappingProxyType({"a": 1}), UserDict(a=1), ChainMap({"a": 1})):
        assert client.call("link", named) == {"a": 1}
    client.notify("log.write", UserDict(line="one"))
    with client.batch() as batch:
        echoed, linked = batch.call("echo", range(2)), batch.call("link", MappingProxyType({"a": 1}))
        batch.notify("log.write", deque(["two"]))
    assert (echoed.result(10), linked.result(10)) == ([0, 1], {"a": 1})
    assert sorted(notes.wait_for(2)) == ["one", "two"]


def test_a_text_is_refused_as_params(client: Client) -> None:
    text: Any
    for text in ("text", b"text", ""):
        for form in (client.call, client.notify, client.submit, client.submit_notify):
            with pytest.raises(TypeError, match=f"not {type(text).__name__}; put a single value in a list"):
                form("echo", text)
    with client.batch() as batch, pytest.raises(TypeError, match="not str; put a single value in a list"):
        batch.call("echo", "text")  # type: ignore[arg-type]  # the refusal is tested


def test_notify_runs_the_method_and_answers_nothing(client: Client, notes: Notes) -> None:
    client.notify("log.write", ["one"])
    assert client.submit_notify("log.write", {"line": "two"}).result(10) is None
    assert sorted(notes.wait_for(2)) == ["one", "two"]


def test_submit(client: Client) -> None:
    futures = [client.submit("add", [i, 1]) for i in range(50)]
    assert [future.result(10) for future in futures] == [i + 1 for i in range(50)]
    with pytest.raises(MethodNotFound):
        client.submit("absent").result(10)


def test_batch(client: Client, notes: Notes) -> None:
    with client.batch() as batch:
        three = batch.call("add", [1, 2])
        missing = batch.call("absent")
        batch.notify("log.write", ["in a batch"])
        seven = batch.call("add", {"a": 3, "b": 4})
    assert (three.result(), seven.result()) == (3, 7)
    assert isinstance(missing.exception(), MethodNotFound)
    assert notes.wait_for(1) == ["in a batch"]


def test_batch_of_notifications_is_a_notification(client: Client, notes: Notes) -> None:
    with client.batch() as batch:
        batch.notify("log.write", [1])
        batch.notify("log.write", [2])
    assert notes.wait_for(2) == [1, 2]


def test_batch_that_raises_sends_nothing(client: Client, notes: Notes) -> None:
    futures = []

    def give_up() -> None:
        with client.batch() as batch:
            futures.append(batch.call("log.write", ["never"]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert futures[0].cancelled()
    client.call("echo")
    assert notes.lines == []


def test_send_takes_what_jsonrpcclient_makes(client: Client, notes: Notes) -> None:
    assert client.send(jsonrpcclient.request("add", (1, 2), id="mine")) == jsonrpcclient.Ok(3, "mine")
    error = client.send(jsonrpcclient.request("absent", id=7))
    assert isinstance(error, jsonrpcclient.Error)
    assert (error.code, error.id) == (-32601, 7)
    assert client.send(jsonrpcclient.notification("log.write", ("sent",))) is None
    assert notes.wait_for(1) == ["sent"]
    many = client.send(
        [
            jsonrpcclient.request("add", (1, 1), id=1),
            jsonrpcclient.notification("log.write", ("again",)),
            jsonrpcclient.request("add", (2, 2), id=2),
        ]
    )
    assert many == [jsonrpcclient.Ok(2, 1), jsonrpcclient.Ok(4, 2)]


def test_send_raw(client: Client) -> None:
    assert client.send_raw(b'{"jsonrpc": "2.0", "method": "echo", "params": [], "id": null}') is not None
    assert client.send_raw(b'{"jsonrpc": "2.0", "method": "echo"}') is None
    assert b"-32700" in (client.send_raw(b"{") or b"")
    assert (client.send_raw(b"[1,2,3]") or b"").count(b"-32600") == 3


def test_submit_raw(client: Client, notes: Notes) -> None:
    bodies = [b'{"jsonrpc":"2.0","method":"echo","params":[%d],"id":"a.b"}' % number for number in range(100)]
    answers = [future.result(10) for future in [client.submit_raw(body) for body in bodies]]
    assert answers == [b'{"jsonrpc":"2.0","result":[%d],"id":"a.b"}' % number for number in range(100)]
    written = client.submit_raw(b'{"jsonrpc": "2.0", "method": "log.write", "params": ["raw"]}')
    assert written.result(10) is None
    assert notes.wait_for(1) == ["raw"]
    assert isinstance(client.submit_raw(b"{}", service="nobody.home").exception(10), Unroutable)
    with pytest.raises(TypeError, match="bytes"):
        client.submit_raw("{}")  # type: ignore[arg-type]


@pytest.mark.parametrize("request_id", [0, -5, 2**64, 1.5, "", "a.b", "*", "#", "ü", "x" * 300, "request", None])
def test_any_id_comes_back(client: Client, request_id: Any) -> None:
    assert client.send(jsonrpcclient.request("echo", id=request_id)) == jsonrpcclient.Ok([], request_id)


@pytest.mark.parametrize(("code", "kind"), CLASSES_BY_CODE)
def test_errors_have_code_message_and_data(client: Client, code: int, kind: type[RemoteError]) -> None:
    with pytest.raises(RemoteError) as caught:
        client.call("fail", [code])
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.message, error.data) == (code, "as asked", {"why": "test"})


def test_wrong_params_are_invalid_params(client: Client) -> None:
    with pytest.raises(InvalidParams):
        client.call("add", [1])
    with pytest.raises(InvalidParams):
        client.call("add", {"a": 1, "c": 2})


def test_handler_knows_its_request(client: Client, service: str) -> None:
    about = client.call("about", headers={"x-trace": "abc"}, timeout=5)
    assert (about["method"], about["service"], about["user_id"]) == ("about", service, "guest")
    assert about["redelivered"] is False
    assert about["headers"]["x-trace"] == "abc"
    assert 4 < about["remaining"] <= 5
    prefix, client_word, qid = about["routing_key"].rsplit(".", 2)
    assert (prefix, qid) == (f"{service}.request", str(about["id"]))
    assert client_word.startswith("guest-")
    assert client.call("about", timeout=None)["remaining"] is None
    with pytest.raises(RuntimeError, match="inside a method"):
        current_request()


def test_call_without_an_answer_ends_at_its_deadline(client: Client) -> None:
    began = time.monotonic()
    with pytest.raises(CallTimeout, match="1 consumer ") as caught:
        client.call("nap", [2.0], timeout=0.8)
    assert 0.8 <= time.monotonic() - began < 1.9
    assert caught.value.may_have_run
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(CallTimeout):
        client.submit("nap", [1.0], timeout=0.3).result(2)
    assert client.stats()["timeouts"] == 2
    assert client.call("add", [1, 2]) == 3


def test_late_answer_is_dropped_and_counted(client: Client) -> None:
    with pytest.raises(CallTimeout):
        client.send(jsonrpcclient.request("nap", (0.6,), id="same"), timeout=0.3)
    # The same id, while the answer to the first is still coming.
    assert client.send(jsonrpcclient.request("echo", ("second",), id="same")) == jsonrpcclient.Ok(["second"], "same")
    deadline = time.monotonic() + 5
    while client.stats()["dropped_replies"] < 1 and time.monotonic() < deadline:
        client.call("echo")
    # The broker may have dropped it first: it carries the caller's time as its expiration.
    assert client.stats()["dropped_replies"] <= 1
    assert client.stats()["pending"] == 0


def test_service_that_was_never_set_up_is_unroutable_at_once(client: Client, service: str) -> None:
    began = time.monotonic()
    for form in (client.call, client.notify):
        with pytest.raises(Unroutable, match="was ever set up") as caught:
            form("add", [1, 2], service=f"{service}-absent")
        assert not caught.value.may_have_run
    assert time.monotonic() - began < 2


def test_several_services_over_one_connection(client: Client, place: tuple[str, Any], service: str) -> None:
    with Server(place[0], f"{service}.other", methods={"who": lambda: "the other"}):
        assert client.call("who", service=f"{service}.other") == "the other"
        assert client.with_options(service=f"{service}.other").proxy.who() == "the other"
        assert client.call("add", [1, 2]) == 3


def test_with_options_changes_defaults_only(client: Client) -> None:
    with pytest.raises(CallTimeout):
        client.with_options(timeout=0.2).proxy.nap(1)
    assert client.with_options(headers={"x-a": "1"}).call("about")["headers"]["x-a"] == "1"


def test_unknown_option_is_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError, match="tiemout"):
        client.call("add", [1, 2], tiemout=5)  # type: ignore[call-arg]


def test_nested_call_has_no_more_time_than_its_caller(client: Client, place: tuple[str, Any], service: str) -> None:
    outer = Server(place[0], f"{service}-outer")

    @outer.method
    def relay() -> Any:
        return client.call("about", timeout=60)["remaining"]

    with outer:
        assert client.call("relay", service=f"{service}-outer", timeout=3) <= 3


def test_params_without_a_form_in_json_are_refused_before_sending(client: Client) -> None:
    for value, path in ((object(), "params[1]"), (math.nan, "params[1]"), ({"a": {True: 1}}, "params[1].a")):
        for form in (client.call, client.notify, client.submit):
            with pytest.raises(EncodeError, match=rf"^{re.escape(path)}: .*no form"):
                form("echo", [0, value])
    assert client.stats()["pending"] == 0


def test_too_large_request_is_refused_before_sending(place: tuple[str, Any], service: str, server: Server) -> None:
    with Client(place[0], service, reply=place[1], max_size=10_000) as client:
        with pytest.raises(MessageTooLarge) as caught:
            client.call("echo", ["x" * 10_000])
        assert not caught.value.may_have_run
        assert client.call("echo", ["x" * 9_000]) == ["x" * 9_000]


@pytest.mark.parametrize("size", [0, 1, 4096, 131_000, 131_072, 500_000, 3_000_000])
def test_bodies_of_any_size(client: Client, size: int) -> None:
    assert client.call("echo", ["x" * size]) == ["x" * size]


def test_many_threads_share_one_client(client: Client) -> None:
    def work(thread: int) -> list[int]:
        return [client.call("add", [thread * 1000, i]) for i in range(50)]

    with ThreadPoolExecutor(16) as pool:
        for thread, results in enumerate(pool.map(work, range(16))):
            assert results == [thread * 1000 + i for i in range(50)]
    assert client.stats()["pending"] == 0


def test_same_id_from_many_clients_at_once(place: tuple[str, Any], service: str, server: Server) -> None:
    def work(number: int) -> Any:
        with Client(place[0], service, reply=place[1], timeout=20) as client:
            return [client.send(jsonrpcclient.request("echo", (number, i), id=1)) for i in range(5)]

    with ThreadPoolExecutor(50) as pool:
        for number, answers in enumerate(pool.map(work, range(50))):
            assert answers == [jsonrpcclient.Ok([number, i], 1) for i in range(5)]


def test_same_id_twice_in_flight(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda i: client.send(jsonrpcclient.request("echo", (i,), id=1)), range(64))
        assert list(answers) == [jsonrpcclient.Ok([i], 1) for i in range(64)]


def test_closing_ends_calls_in_flight(place: tuple[str, Any], service: str, server: Server) -> None:
    client = Client(place[0], service, reply=place[1]).start()
    future = client.submit("nap", [2])
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 1.9
    with pytest.raises(ClientClosed) as caught:
        future.result(0)
    assert caught.value.may_have_run
    with pytest.raises(ClientClosed):
        client.call("add", [1, 2])


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "a b", "amq.x", "a.request", "x.response", "control", "ü", "a" * 81, "a.*", "#"]
)
def test_illegal_service_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        Client("memory://names", name)
    with pytest.raises(InvalidName):
        Server("memory://names", name)


def test_call_without_a_service_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="service"):
        Client("memory://none").call("add")


def test_user_that_fits_no_routing_key_is_refused_when_the_client_is_made() -> None:
    with pytest.raises(InvalidName, match="64"):
        Client("memory://none", user="u" * 65)


@pytest.mark.parametrize(("options", "mode"), [({}, 2), ({"persistent": False}, 1)])
def test_notifications_are_persistent_unless_said_otherwise(
    url: str, service: str, options: dict[str, Any], mode: int
) -> None:
    with Server(url, service):
        pass
    with Client(url, service) as client:
        client.notify("x", **options)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        _, properties, _ = connection.channel().basic_get(f"{service}_req", auto_ack=True)
        assert properties.delivery_mode == mode
        assert properties.message_id


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_timeouts_that_are_no_times_are_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client("memory://none", "s").call("x", timeout=timeout)


@pytest.mark.threads_client
def test_batch_is_used_once_and_inside_its_block(client: Client) -> None:
    batch = client.batch()
    with pytest.raises(RuntimeError, match="with block"):
        batch.call("add", [1, 2])
    with batch:
        future = batch.call("add", [1, 2])
        with pytest.raises(RuntimeError, match="with block"):
            future.result()
    assert future.result() == 3
    with pytest.raises(RuntimeError, match="with block"):
        batch.notify("log.write", [1])
    with pytest.raises(RuntimeError, match="once"):
        batch.__enter__()


def test_callback_of_a_future_must_not_wait_for_a_call(client: Client) -> None:
    errors: list[Any] = []
    done = threading.Event()

    def back(_future: Any) -> None:
        try:
            client.call("add", [1, 2])
        except RuntimeError as exc:
            errors.append(exc)
        client.submit("add", [3, 4]).add_done_callback(seven)

    def seven(future: Any) -> None:
        errors.append(future.result())
        done.set()

    # Slow enough to be pending still: the callback of a future that is done runs where it is added.
    client.submit("nap", [0.3]).add_done_callback(back)
    assert done.wait(10)
    assert "thread" in str(errors[0])
    assert errors[1] == 7


def test_wrong_types_are_told(client: Client) -> None:
    with pytest.raises(TypeError, match="send_raw"):
        client.send(jsonrpcclient.request_json("add", (1, 2)))
    with pytest.raises(TypeError, match="bytes"):
        client.send_raw("{}")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list or a dict, not str"):
        client.call("add", "12")  # type: ignore[arg-type]  # the refusal is tested
    with pytest.raises(TypeError, match="list or a dict"):
        client.call("add", a=1, b=2)  # type: ignore[call-arg]
    wrong: Any
    for wrong, message in (({"timout": 1}, "unknown option timout"), ({"queue": "q"}, "for the whole client")):
        with pytest.raises(TypeError, match=message):
            client.with_options(**wrong)
    with pytest.raises(TypeError, match="URL"):
        Client(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        Client("memory://none", timeout="3")  # type: ignore[arg-type]


@pytest.mark.threads_client
def test_callback_that_raises_harms_nobody(client: Client) -> None:
    def leave(_future: Any) -> None:
        raise SystemExit("not here")

    for _ in range(3):
        # Slow enough to be pending still: otherwise it would be raised here, where the callback is added.
        client.submit("nap", [0.2]).add_done_callback(leave)
    assert client.call("add", [1, 2]) == 3
    assert client.submit("add", [1, 2]).result(10) == 3


def test_headers_that_amqp_has_no_form_for_cost_that_call_only(place: tuple[str, Any], service: str) -> None:
    with Server(place[0], service, methods={"ok": lambda: 1}):
        client = Client(place[0], service, reply=place[1], timeout=10)
        # Parked until there is a connection, the bad one between good ones.
        before = client.submit("ok")
        for form in (client.submit, client.call):
            with pytest.raises(EncodeError):
                form("ok", headers=["x"])  # type: ignore[arg-type]
        after = client.submit("ok")
        assert (before.result(10), after.result(10)) == (1, 1)
        assert client.stats()["connections"] == 1
        client.close()


def test_junk_as_the_answer_to_a_batch_ends_its_futures(place: tuple[str, Any], service: str) -> None:
    with Server(place[0], service, dispatcher=lambda _body: b"junk"), Client(place[0], service) as client:
        with pytest.raises(MalformedReply), client.batch() as batch:
            future = batch.call("x")
        assert isinstance(future.exception(0), MalformedReply)
        with pytest.raises(MalformedReply) as caught:
            client.call("x")
        assert caught.value.may_have_run


def test_pending_calls_are_bounded(service: str) -> None:
    go = threading.Event()
    server = Server(f"memory://{service}", service, methods={"wait": lambda: go.wait(10)})
    with server, Client(f"memory://{service}", service, timeout=10, max_pending=3) as client:
        futures = [client.submit("wait") for _ in range(3)]
        for form in (client.call, client.submit, client.notify, client.submit_notify):
            with pytest.raises(TooManyPending, match="max_pending") as caught:
                form("wait", retry="safe")
            assert not caught.value.may_have_run
        go.set()
        assert [future.result(10) for future in futures] == [True] * 3
        assert client.call("wait") is True
    with pytest.raises(ValueError, match="max_pending"):
        Client(f"memory://{service}", service, max_pending=0)
