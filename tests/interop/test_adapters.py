"""Other JSON-RPC libraries on our transport: their own clients and servers, used as their documentation says."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pjrpc
import pjrpc.server
import pytest
from jsonrpclib import AppError, MultiCall, ProtocolError, ServerProxy
from jsonrpclib.SimpleJSONRPCServer import SimpleJSONRPCDispatcher
from pjrpc.client.exceptions import JsonRpcError, MethodNotFoundError
from tinyrpc import RPCClient
from tinyrpc.client import RPCCallTo
from tinyrpc.dispatch import RPCDispatcher
from tinyrpc.exc import RPCError
from tinyrpc.protocols.jsonrpc import JSONRPCProtocol
from tinyrpc.server import RPCServer

from jsonrpc_amqp import (
    AsyncClient,
    Client,
    InternalError,
    InvalidParams,
    MethodNotFound,
    RemoteError,
    Request,
    Server,
    TransportError,
    Unroutable,
    current_request,
)
from jsonrpc_amqp.adapters import jsonrpclib as pelix
from jsonrpc_amqp.adapters import pjrpc as pjrpc_adapter
from jsonrpc_amqp.adapters import tinyrpc as tinyrpc_adapter

from ..tools import wait_for
from .asking import BATCH, check_server, check_server_at_once

CALLERS = 32


def subtract(minuend: float, subtrahend: float) -> float:
    return minuend - subtrahend


def echo(value: Any) -> Any:
    return value


@pytest.fixture(params=["topic", "direct"])
def client(request: pytest.FixtureRequest, url: str, conformance: str) -> Iterator[Client]:
    """A client of the conformance service, which our own dispatcher serves."""
    with Client(url, "conformance", reply=request.param, timeout=20) as client:
        yield client


@contextmanager
def serving(url: str, service: str, dispatcher: Callable[[bytes], bytes | None], **options: Any) -> Iterator[Client]:
    with Server(url, service, dispatcher=dispatcher, **options), Client(url, service, timeout=20) as client:
        yield client


def check_bounds(client: Client) -> None:
    """Hostile bytes are answered before the library sees them; a call with an id of null is a call."""
    for body, code in (
        (b"", -32700),
        (b'{"jsonrpc": "2.0", "method"', -32700),
        (b"[" * 50_000, -32700),
        (json.dumps([1] * 1001).encode(), -32600),
    ):
        assert json.loads(client.send_raw(body) or b"")["error"]["code"] == code
    null = client.send_raw(b'{"jsonrpc": "2.0", "method": "echo", "params": [1], "id": null}')
    assert json.loads(null or b"") == {"jsonrpc": "2.0", "result": 1, "id": None}
    assert client.call("echo", [1]) == 1


# -- jsonrpclib-pelix -------------------------------------------------------------------------------------


@pytest.mark.peer("jsonrpclib in", works="results, faults, params by name, `_notify`, topic and direct replies")
def test_pelix_server_proxy(client: Client) -> None:
    with ServerProxy("http://ignored/", transport=pelix.AmqpTransport(client)) as proxy:
        assert proxy.subtract(42, 23) == 19
        assert proxy.subtract(subtrahend=23, minuend=42) == 19
        assert proxy.echo("ü 中 😀") == "ü 中 😀"
        with pytest.raises(ProtocolError) as missing:
            proxy.absent()
        assert missing.value.args[0][0] == -32601
        with pytest.raises(AppError) as refused:
            proxy.refuse()
        assert refused.value.args[0] == (1, "not today", {"when": "tomorrow"})
        assert proxy._notify.notify_hello("pelix") is None
        wait_for(lambda: "pelix" in proxy.was_told())
    assert client.call("echo", [1]) == 1  # closing the proxy does not close the client


@pytest.mark.peer("jsonrpclib in", works="`MultiCall` with calls, notifications and faults")
def test_pelix_multi_call(client: Client) -> None:
    proxy = ServerProxy("http://ignored/", transport=pelix.AmqpTransport(client))
    multi = MultiCall(proxy)
    multi.sum(1, 2, 4)
    multi._notify.notify_hello("pelix in a batch")
    multi.absent()
    multi.echo([])
    results = multi()
    assert len(results) == 3
    assert (results[0], results[2]) == (7, [])
    with pytest.raises(ProtocolError):
        results[1]
    only = MultiCall(proxy)
    only._notify.notify_hello("pelix alone")
    assert list(only()) == []
    wait_for(lambda: {"pelix in a batch", "pelix alone"} <= set(proxy.was_told()))


@pytest.mark.peer("jsonrpclib in", works="its headers, as AMQP headers; our `TransportError`s; 32 threads, 1,000 calls")
def test_pelix_headers_errors_and_threads(url: str, service: str) -> None:
    def headers() -> Mapping[str, Any]:
        return {name: value for name, value in current_request().headers.items() if name != "timeout-ms"}

    with (
        Server(url, service, methods={"headers": headers, "echo": echo}),
        Client(url, service, timeout=10) as client,
    ):
        proxy = ServerProxy("http://ignored/", transport=pelix.AmqpTransport(client), headers={"a": 1})
        assert proxy.headers() == {"a": "1"}
        with proxy._additional_headers({"a": "2", "b": "x"}) as more:
            assert more.headers() == {"a": "2", "b": "x"}
        assert proxy.headers() == {"a": "1"}
        unserved = pelix.AmqpTransport(client.with_options(service="nobody.home"))
        with pytest.raises(Unroutable):
            ServerProxy("http://ignored/", transport=unserved).echo(1)
        with ThreadPoolExecutor(CALLERS) as threads:
            assert list(threads.map(proxy.echo, range(1000))) == list(range(1000))


def pelix_methods() -> SimpleJSONRPCDispatcher:
    methods = SimpleJSONRPCDispatcher()
    methods.register_function(subtract)
    methods.register_function(echo)
    methods.register_function(lambda: 1 / 0, "fail")
    return methods


@pytest.mark.peer("jsonrpclib out", works="results, errors, batches, notifications, 1,000 at once; invalid JSON")
def test_pelix_dispatcher(url: str, service: str) -> None:
    methods = pelix_methods()
    received: list[Any] = []
    methods.register_function(received.append, "tell")
    with serving(url, service, pelix.dispatcher(methods)) as client:
        check_server(client)
        check_server_at_once(client)
        check_bounds(client)
        client.notify("tell", ["pelix"])
        wait_for(lambda: received == ["pelix"])
        with pytest.raises(InternalError) as failed:
            client.call("fail")
        assert "division" not in str(failed.value)


@pytest.mark.peer("jsonrpclib in", works="with its own dispatcher")
@pytest.mark.peer("jsonrpclib out", works="with its own `ServerProxy` and `MultiCall`")
def test_pelix_at_both_ends(url: str, service: str) -> None:
    with serving(url, service, pelix.dispatcher(pelix_methods())) as client:
        proxy = ServerProxy("http://ignored/", transport=pelix.AmqpTransport(client))
        multi = MultiCall(proxy)
        for number in range(10):
            multi.echo(number)
        assert list(multi()) == list(range(10))
        with pytest.raises(ProtocolError):
            proxy.fail()


# -- tinyrpc ----------------------------------------------------------------------------------------------


class Threaded(RPCServer):  # type: ignore[misc]  # it has no type hints
    """An RPCServer that runs requests concurrently, in the way that its documentation describes."""

    def _spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        threading.Thread(target=func, args=args, kwargs=kwargs, daemon=True).start()


@contextmanager
def tinyrpc_serving(
    url: str, service: str, methods: RPCDispatcher, kind: type[RPCServer] = RPCServer, **options: Any
) -> Iterator[tinyrpc_adapter.AmqpServerTransport]:
    transport = tinyrpc_adapter.AmqpServerTransport(url, service, **options)
    ended: list[BaseException] = []

    def serve() -> None:
        try:
            kind(transport, JSONRPCProtocol(), methods).serve_forever()
        except EOFError as exc:
            ended.append(exc)

    thread = threading.Thread(target=serve)
    transport.start()
    thread.start()
    try:
        yield transport
    finally:
        assert transport.stop(grace=10)
        thread.join(10)
        assert len(ended) == 1


def tinyrpc_methods() -> RPCDispatcher:
    methods = RPCDispatcher()
    methods.add_method(subtract)
    methods.add_method(echo)
    return methods


@pytest.mark.peer("tinyrpc client", works="results, errors, notifications, `batch_call`, topic and direct replies")
def test_tinyrpc_client(client: Client) -> None:
    rpc = RPCClient(JSONRPCProtocol(), tinyrpc_adapter.AmqpClientTransport(client))
    proxy = rpc.get_proxy()
    assert proxy.subtract(42, 23) == 19
    assert proxy.subtract(subtrahend=23, minuend=42) == 19
    assert proxy.echo("ü 中 😀") == "ü 中 😀"
    with pytest.raises(RPCError, match="not today"):
        proxy.refuse()
    rpc.call("notify_hello", ["tinyrpc"], {}, one_way=True)
    wait_for(lambda: "tinyrpc" in proxy.was_told())
    batch = rpc.batch_call([RPCCallTo("sum", [1, 2, 4], {}, False), RPCCallTo("absent", [], {}, False)])
    assert [getattr(each, "result", "failed") for each in batch] == [7, "failed"]
    unserved = tinyrpc_adapter.AmqpClientTransport(client.with_options(service="nobody.home"))
    with pytest.raises(TransportError):
        RPCClient(JSONRPCProtocol(), unserved).call("echo", [1], {})


@pytest.mark.peer("tinyrpc client", works="32 threads with one `RPCClient`, 3,200 calls")
def test_tinyrpc_client_many_at_once(client: Client) -> None:
    proxy = RPCClient(JSONRPCProtocol(), tinyrpc_adapter.AmqpClientTransport(client)).get_proxy()
    with ThreadPoolExecutor(CALLERS) as threads:
        assert list(threads.map(proxy.echo, range(100 * CALLERS))) == list(range(100 * CALLERS))


@pytest.mark.peer("tinyrpc server", works="results, errors, batches, notifications, 1,000 at once; invalid JSON")
def test_tinyrpc_server(url: str, service: str) -> None:
    methods = tinyrpc_methods()
    received: list[Any] = []
    methods.add_method(received.append, "tell")
    with tinyrpc_serving(url, service, methods), Client(url, service, timeout=20) as client:
        check_server(client)
        check_server_at_once(client)
        check_bounds(client)
        for number in range(50):
            client.notify("tell", [number])
        wait_for(lambda: sorted(received) == list(range(50)))
        answer = json.loads(client.send_raw(BATCH.encode()) or b"")
        assert [each["id"] for each in answer] == ["1", 2]


@pytest.mark.peer("tinyrpc server", works="32 callers, each an `RPCClient`, that must all run at once")
@pytest.mark.peer("tinyrpc client", works="with its own `RPCServer`")
def test_tinyrpc_with_concurrent_callers(url: str, service: str) -> None:
    """This hangs with tinyrpc's own RabbitMQ transport."""
    together = threading.Barrier(CALLERS)

    def meet(number: int) -> int:
        together.wait(20)
        return number

    methods = tinyrpc_methods()
    methods.add_method(meet)
    with (
        tinyrpc_serving(url, service, methods, Threaded, concurrency=CALLERS),
        Client(url, service, timeout=20) as client,
        ThreadPoolExecutor(CALLERS) as threads,
    ):

        def call(number: int) -> Any:
            rpc = RPCClient(JSONRPCProtocol(), tinyrpc_adapter.AmqpClientTransport(client))
            return rpc.call("meet", [number], {})

        for _ in range(10):
            assert list(threads.map(call, range(CALLERS))) == list(range(CALLERS))


@pytest.mark.peer("tinyrpc server", works="an expired request is not run, and one that is running is")
def test_tinyrpc_server_that_is_slow(url: str, service: str) -> None:
    begun, may_end, ran = threading.Semaphore(0), threading.Event(), []

    def slow(number: int) -> int:
        begun.release()
        assert may_end.wait(20)
        ran.append(number)
        return number

    methods = RPCDispatcher()
    methods.add_method(slow)
    with tinyrpc_serving(url, service, methods), Client(url, service, timeout=20) as client:
        first = client.submit("slow", [1])
        assert begun.acquire(timeout=10)
        second = client.submit("slow", [2], timeout=0.3)
        assert isinstance(second.exception(10), (TransportError, RemoteError))
        # The server counts from when it received the request, which on a busy machine is later.
        time.sleep(1)
        third = client.submit("slow", [3])
        may_end.set()
        assert (first.result(10), third.result(10)) == (1, 3)
        assert ran == [1, 3]


@pytest.mark.peer("tinyrpc server", works="a notification is acknowledged when it is done, a call after its reply")
@pytest.mark.parametrize("kind", [RPCServer, Threaded])
def test_tinyrpc_server_that_is_interrupted(url: str, service: str, kind: type[RPCServer]) -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def wait() -> str:
        begun.release()
        assert may_end.wait(20)
        return "done"

    methods, ran = RPCDispatcher(), []
    methods.add_method(wait)

    def serve_until_interrupted(client: Client) -> None:
        with tinyrpc_adapter.AmqpServerTransport(url, service) as transport:
            threading.Thread(target=kind(transport, JSONRPCProtocol(), methods).receive_one_message).start()
            client.notify("wait")
            assert begun.acquire(timeout=10)
            raise KeyboardInterrupt

    with Client(url, service, timeout=20) as client:
        with pytest.raises(KeyboardInterrupt):
            serve_until_interrupted(client)
        again = RPCDispatcher()
        again.add_method(lambda: ran.append(1), "wait")
        with tinyrpc_serving(url, service, again):
            wait_for(lambda: ran == [1])
    may_end.set()


# -- pjrpc ------------------------------------------------------------------------------------------------


@pytest.mark.peer("pjrpc client", works="results, errors, batches, notifications, topic and direct replies")
def test_pjrpc_client(client: Client) -> None:
    rpc = pjrpc_adapter.PjrpcClient(client)

    def told() -> set[Any]:
        return set(client.call("was_told"))

    assert rpc.call("subtract", 42, 23) == 19
    assert rpc.proxy.subtract(subtrahend=23, minuend=42) == 19
    assert rpc("echo", "ü 中 😀") == "ü 中 😀"
    with pytest.raises(MethodNotFoundError):
        rpc.call("absent")
    with pytest.raises(JsonRpcError) as refused:
        rpc.call("refuse")
    assert (refused.value.code, refused.value.data) == (1, {"when": "tomorrow"})
    rpc.notify("notify_hello", "pjrpc")
    wait_for(lambda: "pjrpc" in told())
    with rpc.batch() as batch:
        batch.call("sum", 1, 2, 4)
        batch.notify("notify_hello", "pjrpc in a batch")
        batch.call("echo", [])
    assert list(batch.get_results()) == [7, []]
    with rpc.batch() as failing:
        failing.call("echo", 1)
        failing.call("absent")
    response = failing.get_response()
    assert response is not None
    assert [each.is_error for each in response] == [False, True]
    with rpc.batch() as alone:
        alone.notify("notify_hello", "pjrpc alone")
    wait_for(lambda: {"pjrpc in a batch", "pjrpc alone"} <= told())
    answer = rpc.send(pjrpc.common.Request(method="echo", params=[1], id=7), timeout=5)
    assert answer is not None
    assert (answer.id, answer.result) == (7, 1)
    with pytest.raises(Unroutable):
        rpc.send(pjrpc.common.Request(method="echo", params=[1], id=7), service="nobody.home")


@pytest.mark.peer("pjrpc client", works="`async`: 1,000 at once without a thread for each; batches, notifications")
def test_pjrpc_async_client(client: Client, url: str) -> None:
    async def use(rpc: pjrpc_adapter.PjrpcAsyncClient) -> None:
        assert await asyncio.gather(*(rpc.proxy.echo(number) for number in range(1000))) == list(range(1000))
        async with rpc.batch() as batch:
            batch.call("sum", 1, 2, 4)
            batch.notify("notify_hello", "pjrpc async")
        assert list(batch.get_results()) == [7]
        await rpc.notify("notify_hello", "pjrpc async alone")
        with pytest.raises(MethodNotFoundError):
            await rpc.call("absent")
        with pytest.raises(Unroutable):
            await rpc.send(pjrpc.common.Request(method="echo", params=[1], id=7), service="nobody.home")

    async def use_both() -> None:
        await use(pjrpc_adapter.PjrpcAsyncClient(client))
        async with AsyncClient(url, "conformance", timeout=20) as own:
            await use(pjrpc_adapter.PjrpcAsyncClient(own))

    asyncio.run(use_both())
    wait_for(lambda: {"pjrpc async", "pjrpc async alone"} <= set(client.call("was_told")))


def pjrpc_methods() -> pjrpc.server.Dispatcher[Request]:
    registry = pjrpc.server.MethodRegistry()
    registry.add_method(subtract)
    registry.add_method(echo)
    dispatcher = pjrpc.server.Dispatcher[Request]()
    dispatcher.add_methods(registry)
    return dispatcher


@pytest.mark.peer("pjrpc dispatcher", works="results, errors, batches, notifications, 1,000 at once; invalid JSON")
@pytest.mark.peer("pjrpc dispatcher", works="our `Request` as the context of a method; its own errors")
def test_pjrpc_dispatcher(url: str, service: str) -> None:
    dispatcher = pjrpc_methods()
    received: list[Any] = []
    registry = pjrpc.server.MethodRegistry()

    @registry.add(pass_context="request")
    def about(request: Request, value: int) -> Any:
        return [request.service, request.user_id, request.remaining is not None, value]

    @registry.add()
    def tell(value: Any) -> None:
        received.append(value)

    @registry.add()
    def refuse() -> None:
        raise pjrpc.server.exceptions.JsonRpcError(code=1, message="not today", data={"when": "tomorrow"})

    dispatcher.add_methods(registry)
    with serving(url, service, pjrpc_adapter.dispatcher(dispatcher)) as client:
        check_server(client)
        check_server_at_once(client)
        check_bounds(client)
        assert client.call("about", [7]) == [service, "guest", True, 7]
        with pytest.raises(RemoteError) as refused:
            client.call("refuse")
        assert (refused.value.code, refused.value.data) == (1, {"when": "tomorrow"})
        client.notify("tell", ["alone"])
        with client.batch() as batch:
            batch.notify("tell", ["in a batch"])
        wait_for(lambda: sorted(received) == ["alone", "in a batch"])
        with client.batch() as mixed:
            one, missing, wrong = mixed.call("echo", [1]), mixed.call("absent"), mixed.call("subtract", [1])
        assert one.result() == 1
        assert isinstance(missing.exception(), MethodNotFound)
        assert isinstance(wrong.exception(), InvalidParams)


@pytest.mark.peer("pjrpc client", works="with its own dispatcher")
@pytest.mark.peer("pjrpc dispatcher", works="with its own client")
def test_pjrpc_at_both_ends(url: str, service: str) -> None:
    with serving(url, service, pjrpc_adapter.dispatcher(pjrpc_methods())) as client:
        rpc = pjrpc_adapter.PjrpcClient(client)
        with rpc.batch() as batch:
            for number in range(10):
                batch.call("echo", number)
        assert list(batch.get_results()) == list(range(10))
