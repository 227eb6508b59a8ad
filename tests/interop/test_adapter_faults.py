"""What becomes of requests that another library cannot answer, and of its server once it has ended."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pjrpc
import pjrpc.server
import pytest
from jsonrpclib import ServerProxy
from jsonrpclib.SimpleJSONRPCServer import SimpleJSONRPCDispatcher
from tinyrpc import RPCClient
from tinyrpc.dispatch import RPCDispatcher
from tinyrpc.protocols.jsonrpc import JSONRPCProtocol
from tinyrpc.server import RPCServer

from jsonrpc_amqp import Client, MalformedReply, Server
from jsonrpc_amqp.adapters import jsonrpclib as pelix
from jsonrpc_amqp.adapters import pjrpc as pjrpc_adapter
from jsonrpc_amqp.adapters.tinyrpc import AmqpClientTransport, AmqpServerTransport

from ..tools import wait_for


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its text")


class Methods:
    """Methods that work and that do not, and what was told to them."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def by_name(self) -> dict[str, Callable[..., Any]]:
        return {
            "echo": lambda value: value,
            "tell": lambda value: self.told.append(value),
            "unwritable": lambda: {1: {object()}},
            "nan": lambda: float("nan"),
            "exit": sys.exit,
            "interrupt": self.interrupt,
            "fail": lambda: 1 / 0,
            "unprintable": self.unprintable,
        }

    @staticmethod
    def interrupt() -> None:
        raise KeyboardInterrupt

    @staticmethod
    def unprintable() -> None:
        raise Unprintable


@contextmanager
def serving_pelix(url: str, service: str, methods: Methods) -> Iterator[object]:
    dispatcher = SimpleJSONRPCDispatcher()
    for name, method in methods.by_name().items():
        dispatcher.register_function(method, name)
    with Server(url, service, dispatcher=pelix.dispatcher(dispatcher)) as server:
        yield server


@contextmanager
def serving_pjrpc(url: str, service: str, methods: Methods) -> Iterator[object]:
    registry = pjrpc.server.MethodRegistry()
    for name, method in methods.by_name().items():
        registry.add_method(method, name)
    dispatcher = pjrpc.server.Dispatcher[Any]()
    dispatcher.add_methods(registry)
    with Server(url, service, dispatcher=pjrpc_adapter.dispatcher(dispatcher)) as server:
        yield server


def rpc_server(
    transport: AmqpServerTransport, methods: Methods, kind: type[RPCServer] = RPCServer, **more: Any
) -> RPCServer:
    dispatcher = RPCDispatcher()
    for name, method in {**methods.by_name(), **more}.items():
        dispatcher.add_method(method, name)
    return kind(transport, JSONRPCProtocol(), dispatcher)


class Threaded(RPCServer):  # type: ignore[misc]  # it has no type hints
    def _spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        threading.Thread(target=func, args=args, kwargs=kwargs, daemon=True).start()


@contextmanager
def serving_tinyrpc(
    url: str, service: str, methods: Methods, kind: type[RPCServer] = RPCServer, **more: Any
) -> Iterator[AmqpServerTransport]:
    with AmqpServerTransport(url, service) as transport:
        server = rpc_server(transport, methods, kind, **more)
        thread = threading.Thread(target=transport.serve_forever, args=[server])
        thread.start()
        yield transport
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def serving_threaded_tinyrpc(url: str, service: str, methods: Methods) -> Iterator[object]:
    with serving_tinyrpc(url, service, methods, Threaded) as transport:
        yield transport


@contextmanager
def serving_with_its_own_loop(url: str, service: str, methods: Methods) -> Iterator[object]:
    def serve() -> None:
        with suppress(EOFError):
            rpc_server(transport, methods).serve_forever()

    with AmqpServerTransport(url, service) as transport:
        thread = threading.Thread(target=serve)
        thread.start()
        yield transport
    thread.join(10)
    assert not thread.is_alive()


ADAPTERS = {
    "jsonrpclib": serving_pelix,
    "pjrpc": serving_pjrpc,
    "tinyrpc": serving_tinyrpc,
    "tinyrpc threaded": serving_threaded_tinyrpc,
}
# Threads of a Threaded server end with the exception.
UNHANDLED = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def call(method: str, id: Any, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": list(params), "id": id}


def notification(method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": list(params)}


def ask(client: Client, body: Any) -> Any:
    reply = client.send_raw(json.dumps(body).encode())
    return None if reply is None else json.loads(reply)


def outcome(response: dict[str, Any]) -> tuple[Any, Any]:
    """Return the id, and the code of the error or the result."""
    assert response["jsonrpc"] == "2.0"
    return response["id"], response["error"]["code"] if "error" in response else response["result"]


GOOD = call("echo", 1, 3)
BODIES: dict[str, tuple[Any, list[tuple[Any, Any]]]] = {
    "no method": ([GOOD, {"foo": "boo"}], [(1, 3), (None, -32600)]),
    "no objects": ([1, GOOD, "x", None, []], [(None, -32600), (1, 3), *[(None, -32600)] * 3]),
    "only no objects": ([1, 2], [(None, -32600)] * 2),
    "another version": ([{**GOOD, "jsonrpc": "1.0"}, {"method": "echo", "id": 7}], [(1, -32600), (7, -32600)]),
    "a number as method": ([{**GOOD, "method": 1}, GOOD], [(1, -32600), (1, 3)]),
    "a text as params": ([{**GOOD, "params": "x"}, GOOD], [(1, -32600), (1, 3)]),
    "null as params": ([{**GOOD, "params": None, "id": "a"}, GOOD], [("a", -32600), (1, 3)]),
    "unusable ids": ([{**GOOD, "id": [4]}, {**GOOD, "id": True}, GOOD], [*[(None, -32600)] * 2, (1, 3)]),
    "odd ids": (
        [call("echo", id, id) for id in (None, "", 0, 1.5, -1, "a.b", 2**70)],
        [(id, id) for id in (None, "", 0, 1.5, -1, "a.b", 2**70)],
    ),
    "an id of null and a notification": ([notification("tell", 1), call("echo", None, 5), GOOD], [(None, 5), (1, 3)]),
    "only an id of null": ([call("echo", None, 5)], [(None, 5)]),
    "equal ids": ([GOOD, call("echo", 1, 4), call("echo", "1", 5)], [(1, 3), (1, 4), ("1", 5)]),
    "more members": ([{**GOOD, "more": 1}], [(1, 3)]),
    "no such method": ([call("absent", 7), GOOD, call("absent", None)], [(7, -32601), (1, 3), (None, -32601)]),
    "wrong params": ([call("echo", ""), GOOD], [("", -32602), (1, 3)]),
    "an unwritable result": ([call("unwritable", 7), GOOD], [(7, -32603), (1, 3)]),
    "NaN": ([call("nan", 7), GOOD], [(7, -32603), (1, 3)]),
    "an exit": ([call("exit", ""), notification("exit"), GOOD, call("exit", 7)], [("", -32603), (1, 3), (7, -32603)]),
}  # fmt: skip


PEERS = {"jsonrpclib": "jsonrpclib out", "pjrpc": "pjrpc dispatcher", "tinyrpc": "tinyrpc server"}
MEMBERS = "each member of a batch its own outcome: invalid ones, odd ids, results without a form in JSON, `sys.exit()`"
MARKED = [pytest.param(name, marks=pytest.mark.peer(PEERS[name.split()[0]], works=MEMBERS)) for name in ADAPTERS]


@pytest.mark.parametrize("body", [name for name in BODIES if name not in ("an unwritable result", "an exit")])
def test_invalid_members_do_not_reach_the_loop_of_tinyrpc(service: str, body: str) -> None:
    methods, (sent, wanted) = Methods(), BODIES[body]
    url = f"memory://{service}"
    with serving_with_its_own_loop(url, service, methods), Client(url, service, timeout=20) as client:
        for _ in range(2):
            assert [outcome(each) for each in ask(client, sent)] == wanted


@UNHANDLED
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("adapter", MARKED)
def test_each_member_has_its_own_outcome(service: str, adapter: str, body: str) -> None:
    methods, (sent, wanted) = Methods(), BODIES[body]
    url = f"memory://{service}"
    with ADAPTERS[adapter](url, service, methods), Client(url, service, timeout=20) as client:
        replies = ask(client, sent)
        if adapter == "jsonrpclib" and body == "an unwritable result":
            # It writes any object, as its attributes.
            replies[0] = {**replies[0], "error": {"code": -32603}}
        assert [outcome(each) for each in replies] == wanted
        # Each member alone as well; and the library still serves.
        for member in sent:
            reply = ask(client, member)
            assert reply is None or reply["id"] in [id for id, _outcome in wanted]
        assert [reply["id"] for reply in ask(client, sent)] == [id for id, _outcome in wanted]
        assert outcome(ask(client, GOOD)) == (1, 3)


SINGLE = {
    "exits": call("exit", "a"),
    "is interrupted": call("interrupt", "a"),
    "raises": call("fail", "a"),
    "raises what cannot be printed": call("unprintable", "a"),
    "returns NaN": call("nan", "a"),
}


@UNHANDLED
@pytest.mark.parametrize("fault", SINGLE)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_library_that_fails_goes_on(url: str, service: str, adapter: str, fault: str) -> None:
    methods = Methods()
    with ADAPTERS[adapter](url, service, methods), Client(url, service, timeout=20) as client:
        for id in ("a", None, 7):
            reply = ask(client, {**SINGLE[fault], "id": id})
            assert reply["id"] == id
            # What a method raises has a code of the library's choice.
            assert "error" in reply if fault.startswith("raises") else reply["error"]["code"] == -32603
        failing = {key: value for key, value in SINGLE[fault].items() if key != "id"}
        assert ask(client, failing) is None
        assert ask(client, [failing, notification("tell", 1)]) is None
        wait_for(lambda: methods.told == [1])
        assert outcome(ask(client, GOOD)) == (1, 3)


# -- an RPCServer that has ended --------------------------------------------------------------------------


class Loop:
    """Runs an ``RPCServer`` as applications do, until it ends, and keeps the exception."""

    def __init__(self, server: RPCServer) -> None:
        self._server = server
        self.ended = threading.Event()
        self.leave = threading.Event()
        self.exception: BaseException | None = None

    def run(self) -> None:
        """End with the exception."""
        try:
            self._server.serve_forever()
        finally:
            self.ended.set()

    def run_and_keep(self) -> None:
        """Keep the exception, which keeps the frames of the library alive."""
        try:
            self.run()
        except BaseException as exc:
            self.exception = exc

    def run_and_stay(self) -> None:
        self.run_and_keep()
        self.leave.wait(30)


@contextmanager
def on_a_thread(loop: Loop) -> Iterator[None]:
    yield from running(threading.Thread(target=loop.run))


@contextmanager
def on_a_thread_that_keeps(loop: Loop) -> Iterator[None]:
    yield from running(threading.Thread(target=loop.run_and_keep))


@contextmanager
def on_a_thread_that_stays(loop: Loop) -> Iterator[None]:
    try:
        yield from running(threading.Thread(target=loop.run_and_stay))
    finally:
        loop.leave.set()


def running(thread: threading.Thread) -> Iterator[None]:
    thread.daemon = True
    thread.start()
    yield


@contextmanager
def on_a_pool(loop: Loop) -> Iterator[None]:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(loop.run)
        yield


WAYS = {
    "thread": on_a_thread,
    "thread that keeps the exception": on_a_thread_that_keeps,
    "thread that goes on": on_a_thread_that_stays,
    "pool": on_a_pool,
}


@pytest.mark.peer("tinyrpc server", works="once its loop has ended, what it has not begun goes to other servers")
@UNHANDLED
@pytest.mark.parametrize("method", ["exit", "unwritable", "unprintable"])
@pytest.mark.parametrize("way", WAYS)
def test_what_an_ended_server_does_not_take_goes_to_others(
    url: str, service: str, way: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def fail() -> Any:
        entered.set()
        assert may_end.wait(20)
        return methods.by_name()[method]()

    methods, others = Methods(), Methods()
    transport = AmqpServerTransport(url, service)
    loop = Loop(rpc_server(transport, methods, fail_later=fail))
    with ExitStack() as stack:
        client = stack.enter_context(Client(url, service, timeout=30))
        stack.callback(transport.stop, 5)
        transport.start()
        stack.enter_context(WAYS[way](loop))
        poison = client.submit_raw(json.dumps(call("fail_later", "p")).encode())
        assert entered.wait(10)
        behind = [client.submit("echo", [number]) for number in range(40)]
        told = client.submit_raw(json.dumps([notification("tell", 1), call("echo", 1, 3)]).encode())
        may_end.set()
        assert outcome(json.loads(poison.result(20) or b"")) == ("p", -32603)
        assert loop.ended.wait(10)
        wait_for(lambda: "no thread runs the loop" in caplog.text)
        with serving_tinyrpc(url, service, others):
            assert [each.result(20) for each in behind] == list(range(40))
            assert outcome(json.loads(told.result(20) or b"")[0]) == (1, 3)
            # None of them goes to the server that has ended.
            for number in range(20):
                assert client.call("echo", [number], timeout=10) == number
        assert (methods.told, others.told) == ([], [1])
        # It consumes again once it is received from again.
        again = threading.Thread(target=transport.serve_forever, args=[rpc_server(transport, methods)])
        again.start()
        assert client.call("echo", [1]) == 1
        assert transport.stop(10)
        again.join(10)
        assert not again.is_alive()


def test_a_request_that_ends_the_program_does_not_end_the_next(url: str, service: str) -> None:
    methods = Methods()
    with AmqpServerTransport(url, service):
        pass  # declares the queue
    with Client(url, service, timeout=30) as client:
        poison = client.submit_raw(json.dumps(call("unwritable", "p")).encode())
        behind = [client.submit("echo", [number]) for number in range(20)]
        with pytest.raises(TypeError, match="set"), AmqpServerTransport(url, service) as transport:
            rpc_server(transport, methods).serve_forever()
        assert outcome(json.loads(poison.result(10) or b"")) == ("p", -32603)
        with serving_tinyrpc(url, service, methods):
            assert [each.result(20) for each in behind] == list(range(20))


def test_a_request_that_exits_is_requeued_once(url: str, service: str) -> None:
    """A SystemExit on the main thread may be of a signal, and then another server is to run the request."""
    runs: list[int] = []

    def leave() -> None:
        runs.append(1)
        sys.exit()

    methods = Methods()
    with AmqpServerTransport(url, service):
        pass  # declares the queue
    with Client(url, service, timeout=30) as client:
        client.notify("leave")
        for number in range(2):
            assert len(runs) == number
            with pytest.raises(SystemExit), AmqpServerTransport(url, service) as transport:
                rpc_server(transport, methods, leave=leave).serve_forever()
        with serving_tinyrpc(url, service, methods, leave=leave):
            assert client.call("echo", [1]) == 1
        assert len(runs) == 2


def test_a_transport_that_no_server_receives_from_stops_at_once(url: str, service: str) -> None:
    methods = Methods()
    with Client(url, service, timeout=30) as client:
        began = time.monotonic()
        with AmqpServerTransport(url, service):
            left = client.submit("echo", [1])
            time.sleep(0.1)
        assert time.monotonic() - began < 20  # the grace is 30 s
        with serving_tinyrpc(url, service, methods):
            assert left.result(20) == 1


def test_a_transport_whose_server_never_begins_stops_consuming(url: str, service: str) -> None:
    methods = Methods()
    with Client(url, service, timeout=30) as client, AmqpServerTransport(url, service) as transport:
        left = client.submit("echo", [1])
        with serving_tinyrpc(url, service, methods):
            assert [client.call("echo", [number]) for number in range(20)] == list(range(20))
            assert left.result(20) == 1
        # It begins after all.
        thread = threading.Thread(target=transport.serve_forever, args=[rpc_server(transport, methods)])
        thread.start()
        assert client.call("echo", [2]) == 2
    thread.join(10)
    assert not thread.is_alive()


def test_a_method_that_hangs_does_not_hold_up_the_end(url: str, service: str) -> None:
    methods, begun, may_end = Methods(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(60)

    transport = AmqpServerTransport(url, service)
    thread = threading.Thread(target=transport.serve_forever, args=[rpc_server(transport, methods, hang=hang)])
    transport.start()
    thread.start()
    with Client(url, service, timeout=30) as client:
        hanging = client.submit("hang")
        assert begun.wait(10)
        behind = client.submit("echo", [1])
        assert not transport.stop(0.5)
        with serving_tinyrpc(url, service, methods, hang=lambda: "elsewhere"):
            assert (hanging.result(20), behind.result(20)) == ("elsewhere", 1)
    may_end.set()
    thread.join(10)
    assert not thread.is_alive()


# -- replies that are no text -----------------------------------------------------------------------------

CLIENTS: dict[str, Callable[[Client], object]] = {
    "jsonrpclib": lambda client: ServerProxy("http://ignored/", transport=pelix.AmqpTransport(client)).echo(1),
    "pjrpc": lambda client: pjrpc_adapter.PjrpcClient(client).call("echo", 1),
    "pjrpc async": lambda client: asyncio.run(pjrpc_adapter.PjrpcAsyncClient(client).call("echo", 1)),
    "tinyrpc": lambda client: RPCClient(JSONRPCProtocol(), AmqpClientTransport(client)).call("echo", [1], {}),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_reply_that_is_no_text(url: str, service: str, name: str) -> None:
    with (
        Server(url, service, dispatcher=lambda _body: b"\xff"),
        Client(url, service, timeout=20) as client,
        pytest.raises(MalformedReply, match="not UTF-8"),
    ):
        CLIENTS[name](client)
