"""``jsonrpc-amqp bridge`` and what it stands on: a service that a JSON-RPC server over HTTP answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import (
    NO_ANSWER,
    NOT_DELIVERED,
    CallTimeout,
    Client,
    DeadLetters,
    InternalError,
    InvalidParams,
    MethodNotFound,
    Server,
    ServerError,
)
from jsonrpc_amqp.http.bridge import HttpBridge

from ..broker import Broker
from ..command import COMMAND, run
from ..http_tools import Asked, RawServer, bridge, free_port, ok, pelix
from ..tools import wait_for

CALL = b'{"jsonrpc": "2.0", "method": "m", "id": "a.b"}'
NOTIFICATION = b'{"jsonrpc": "2.0", "method": "m"}'
BATCH = b'[{"jsonrpc": "2.0", "method": "m", "id": 1}, {"jsonrpc": "2.0", "method": "m"}, {"id": "b"}]'


# -- the recipe's own test: AMQP -> JSON-RPC -> AMQP ------------------------------------------------------


@pytest.fixture(scope="module")
def http_port() -> Iterator[int]:
    port = free_port()
    with pelix(port):
        yield port


@pytest.fixture(scope="module")
def bridged(broker: Broker, http_port: int) -> Iterator[str]:
    """Name a service that jsonrpclib-pelix serves behind a bridge."""
    with bridge("bridged", f"http://127.0.0.1:{http_port}/", url=broker.url):
        yield "bridged"


@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_every_form_of_a_call(url: str, bridged: str, reply: Any) -> None:
    with Client(url, bridged, reply=reply, timeout=10) as client:
        assert client.call("subtract", [42, 23]) == 19
        assert client.call("subtract", {"subtrahend": 23, "minuend": 42}) == 19
        assert client.call("echo", ["ü 中 😀"]) == "ü 中 😀"
        with pytest.raises(MethodNotFound):
            client.call("absent")
        with pytest.raises(InvalidParams):
            client.call("subtract", [1])
        with pytest.raises(InternalError) as failed:
            client.call("fail")
        assert "stays here" not in str(failed.value)
        client.notify("tell", [f"{reply} alone"])
        wait_for(lambda: f"{reply} alone" in client.call("was_told"))
        with client.batch() as batch:
            nineteen, missing = batch.call("subtract", [42, 23]), batch.call("absent")
            batch.notify("tell", [f"{reply} in a batch"])
        assert nineteen.result() == 19
        assert isinstance(missing.exception(), MethodNotFound)
        assert f"{reply} in a batch" in client.call("was_told")
        assert b"-32700" in (client.send_raw(b'{"jsonrpc": "2.0", "method"') or b"")


def test_the_http_server_is_killed_and_restarted(url: str, service: str) -> None:
    port = free_port()
    # So many connections at a time fit into its backlog.
    few = ["--concurrency", "4"]
    with bridge(service, f"http://127.0.0.1:{port}/", *few, url=url), Client(url, service, timeout=10) as client:
        with pytest.raises(ServerError) as unreached:
            client.call("whoami")
        assert (unreached.value.code, unreached.value.data) == (NOT_DELIVERED, {"may_have_run": False})
        with pelix(port) as first:
            assert client.call("whoami") == first.pid
            lost = client.submit("sleep", [60])
            first.wait_until_said("asleep")
            os.kill(first.pid, signal.SIGKILL)
            error = lost.exception(10)
            assert isinstance(error, ServerError)
            assert (error.code, error.data) == (NO_ANSWER, {"may_have_run": True})
        with pytest.raises(ServerError, match="cannot be reached: Connection refused"):
            client.call("whoami")
        with pelix(port) as second:
            assert client.call("whoami") == second.pid != first.pid
            assert [each.result(10) for each in [client.submit("echo", [n]) for n in range(100)]] == list(range(100))


def test_sigterm_answers_what_runs(url: str, service: str) -> None:
    port = free_port()
    with (
        pelix(port) as server,
        bridge(service, f"http://127.0.0.1:{port}/", url=url) as program,
        Client(url, service, timeout=10) as client,
    ):
        answer = client.submit("sleep", [0.5])
        server.wait_until_said("asleep")
        assert program.terminate() == 0
        assert answer.result(10) == 0.5
        assert "Traceback" not in program.output


# -- what an HTTP server may do ---------------------------------------------------------------------------


class Bridged:
    """A service whose HTTP server does as a test says."""

    def __init__(self, url: str, service: str, **options: Any) -> None:
        self.server_options = {key: options.pop(key) for key in ("dead_letters",) if key in options}
        self.options = {"timeout": 5.0, **options}
        self.url, self.service = url, service
        self.answer: Callable[[socket.socket, Asked], object] = lambda sock, asked: sock.sendall(ok(b"{}"))
        self.http = RawServer(lambda sock, asked: self.answer(sock, asked))

    def __enter__(self) -> Bridged:
        self.http.__enter__()
        self.bridge = HttpBridge(self.http.url + "rpc", **self.options)
        self.server = Server(self.url, self.service, dispatcher=self.bridge, **self.server_options).start()
        self.client = Client(self.url, self.service, timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.stop(grace=5)
        self.bridge.close()
        self.http.__exit__()

    def ask(self, body: bytes, **options: Any) -> Any:
        answer = self.client.send_raw(body, **options)
        return None if answer is None else json.loads(answer)


@pytest.fixture
def bridging(service: str) -> Iterator[Bridged]:
    """On memory://, since the bus is not what these tests are about."""
    with Bridged(f"memory://{service}", service, max_size=100_000) as bridged:
        yield bridged


def always(answer: bytes, *, keep: bool = True) -> Callable[[socket.socket, Asked], object]:
    def write(sock: socket.socket, _asked: Asked) -> bool:
        sock.sendall(answer)
        return keep

    return write


def test_bodies_pass_unchanged_in_both_directions(service: str) -> None:
    body, answer = b' {"id" :"\\u0061.b","jsonrpc":"2.0", "method":"m"} ', b'{ "id": "a.b",\n"result": 1e2, "more": 1}'
    headers = {"Authorization": "Bearer x y", "content-type": "application/json-rpc"}
    with Bridged(f"memory://{service}", service, headers=headers) as bridged:
        bridged.answer = always(ok(answer))
        assert bridged.client.send_raw(body) == answer
        (asked,) = bridged.http.asked
        assert asked.body == body
        assert asked.head.startswith(b"POST /rpc HTTP/1.1\r\n")
        lines = asked.head.lower().splitlines()
        assert b"authorization: bearer x y" in lines
        assert b"accept-encoding: identity" in lines
        assert [each for each in lines if each.startswith(b"content-type")] == [b"content-type: application/json-rpc"]


def test_the_connection_is_kept(bridging: Bridged) -> None:
    bridging.answer = always(ok(b'{"result": 1}'))
    for _ in range(20):
        assert bridging.ask(CALL) == {"result": 1}
    assert bridging.http.connections == 1
    assert bridging.bridge.stats() == {"answered": 20, "failed": 0, "lost_notifications": 0}


def dripping(text: bytes, *, from_byte: int) -> Callable[[socket.socket, Asked], object]:
    """Write a byte at a time, so that something always comes, and the end never."""

    def write(sock: socket.socket, _asked: Asked) -> None:
        sock.sendall(text[:from_byte])
        for number in range(from_byte, 10_000):
            sock.sendall(text[number : number + 1] or b"0")
            time.sleep(0.05)

    return write


HEAD_ONLY = b"HTTP/1.1 200 OK\r\nX-Slow: "
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FAULTS: dict[str, tuple[Callable[[socket.socket, Asked], object], str]] = {
    "500": (always(ok(b"<html>", "500 Oops")), "HTTP status 500"),
    "404": (always(ok(b"", "404 Not Found")), "HTTP status 404"),
    "redirection": (always(ok(b"", "302 Found", "Location: http://127.0.0.1:1/")), "HTTP status 302"),
    "no content": (always(b"HTTP/1.1 204 No Content\r\n\r\n"), "HTTP status 204"),
    "empty": (always(ok(b"")), "no JSON-RPC"),
    "html": (always(ok(b"<html>")), "no JSON-RPC"),
    "other json": (always(ok(b'{"ok": true}')), "no JSON-RPC"),
    "too deep": (always(ok(b"[" * 50_000)), "no JSON-RPC"),
    "compressed": (always(ok(b"\x1f\x8b\x08", "200 OK", "Content-Encoding: gzip")), "no JSON-RPC"),
    "too large": (always(ok(b" " * 200_000)), "over the cap of 100000 bytes"),
    "endless": (
        always(CHUNKED + b"4000\r\n" + b" " * 0x4000 + b"\r\n" + b"fffff\r\n" + b" " * 100_000),
        "over the cap",
    ),
    "closed": (always(b"", keep=False), "closed the connection"),
    "broken off": (always(ok(b'{"result": 1}')[:-5], keep=False), "broke off"),
    "no HTTP": (always(b"SSH-2.0-OpenSSH_9.2\r\n", keep=False), "not answer as HTTP has it"),
    "long header": (always(HEAD_ONLY + b"x" * 1_000_000, keep=False), "not answer as HTTP has it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_answer_becomes_an_error_of_each_call(bridging: Bridged, fault: str) -> None:
    bridging.answer, message = FAULTS[fault]
    answer = bridging.ask(CALL)
    assert answer["id"] == "a.b"
    assert answer["error"]["code"] == NO_ANSWER
    assert message in answer["error"]["message"]
    assert answer["error"]["data"] == {"may_have_run": True}
    assert [(each["id"], each["error"]["code"]) for each in bridging.ask(BATCH)] == [(1, NO_ANSWER), ("b", NO_ANSWER)]
    # Asked once each, whatever comes of it.
    assert [each.body for each in bridging.http.asked] == [CALL, BATCH]
    assert bridging.server.stats()["failed"] == 2


@pytest.mark.parametrize("answer", [HEAD_ONLY, CHUNKED, b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b""])
def test_the_timeout_is_for_all_of_it(service: str, answer: bytes) -> None:
    with Bridged(f"memory://{service}", service, timeout=0.4) as bridged:
        bridged.answer = dripping(answer, from_byte=len(answer)) if answer else lambda sock, _asked: sock.recv(1)
        began = time.monotonic()
        error = bridged.ask(CALL)["error"]
        assert (error["code"], error["message"]) == (NO_ANSWER, "the HTTP server did not answer within 0.4 s")
        assert 0.4 <= time.monotonic() - began < 5


def test_no_longer_than_the_caller_waits(bridging: Bridged) -> None:
    gone: list[float] = []

    def wait_for_the_end(sock: socket.socket, _asked: Asked) -> None:
        began = time.monotonic()
        assert sock.recv(1) == b""
        gone.append(time.monotonic() - began)

    bridging.answer = wait_for_the_end
    with pytest.raises(CallTimeout):
        bridging.ask(CALL, timeout=0.3)
    wait_for(lambda: gone)
    assert gone[0] < 4  # the bridge's own timeout is 5 s


def test_an_error_with_a_status_of_failure_is_an_answer(bridging: Bridged) -> None:
    told = b'{"jsonrpc": "2.0", "error": {"code": -32601, "message": "no"}, "id": "a.b"}'
    bridging.answer = always(ok(told, "404 Not Found"))
    assert bridging.client.send_raw(CALL) == told


def test_what_is_no_json_is_answered_here(bridging: Bridged) -> None:
    assert bridging.ask(b"{")["error"]["code"] == -32700
    assert bridging.ask(json.dumps([1] * 1001).encode())["error"]["code"] == -32600
    assert bridging.http.asked == []


def test_a_notification_that_is_lost_becomes_a_dead_letter(url: str, service: str) -> None:
    with Bridged(url, service, dead_letters=True) as bridged, DeadLetters(url, service) as dead:
        bridged.answer = always(ok(b"ignored"))
        assert bridged.ask(NOTIFICATION) is None
        wait_for(lambda: bridged.bridge.stats()["answered"] == 1)
        bridged.answer = always(ok(b"", "503 Busy"))
        assert bridged.ask(NOTIFICATION) is None
        wait_for(lambda: len(dead.list()) == 1)
        assert dead.list()[0].body == NOTIFICATION
        assert bridged.bridge.stats() == {"answered": 1, "failed": 1, "lost_notifications": 1}


def test_nobody_is_there(service: str) -> None:
    with (
        HttpBridge(f"http://127.0.0.1:{free_port()}") as refused,
        HttpBridge("http://nowhere.invalid/") as unknown,
    ):
        for each, message in ((refused, "Connection refused"), (unknown, "unknown host")):
            error = json.loads(each(CALL) or b"")["error"]
            assert error["code"] == NOT_DELIVERED
            assert message in error["message"]
    with (
        RawServer(always(b"no TLS here", keep=False)) as http,
        HttpBridge(http.url.replace("http", "https"), timeout=1) as tls,
    ):
        error = json.loads(tls(CALL) or b"")["error"]
        assert (error["code"], error["data"]) == (NOT_DELIVERED, {"may_have_run": False})


def test_closed(bridging: Bridged) -> None:
    bridge = HttpBridge(bridging.http.url)
    bridging.answer = always(ok(b'{"result": 1}'))
    assert bridge(CALL) is not None
    bridge.close()
    bridge.close()
    assert json.loads(bridge(CALL) or b"")["error"]["code"] == NOT_DELIVERED


# -- usage ------------------------------------------------------------------------------------------------

SECRET = "sentinel-7f3a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "127.0.0.1:8000"], "http://127.0.0.1:8000/"),
        (["--to", f"ftp://user:{SECRET}@host/"], "http://127.0.0.1:8000/"),
        (["--to", f"http://user:{SECRET}@host/", "--header", "Authorization: x"], "not both"),
        (["--to", "http://host/", "--header", SECRET], "NAME: VALUE"),
        (["--to", "http://host/", "--header", f"X: {SECRET}\nY: z"], "printable"),
        (["--to", "http://host/", "--header", "a b: c"], "no name of an HTTP header"),
        (["--to", "http://host/", "--header", "@/no/such/file"], "No such file"),
        (["--to", "http://host/", "--timeout", "0"], "seconds"),
        (["--to", "http://host/", "--service", "a..b"], "a..b"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    done = run("bridge", "--service", "s", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert SECRET not in done.stderr
    assert "Traceback" not in done.stderr


def test_headers_from_a_file(url: str, service: str, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text(f"Authorization: Bearer {SECRET}\n\nX-Tenant: 7\n")
    with (
        RawServer(always(ok(b'{"jsonrpc": "2.0", "result": 1, "id": "a.b"}'))) as http,
        bridge(service, http.url, "--header", f"@{file}", url=url) as program,
        Client(url, service, timeout=10) as client,
    ):
        assert client.send_raw(CALL) is not None
        lines = http.asked[0].head.splitlines()
        assert f"Authorization: Bearer {SECRET}".encode() in lines
        assert b"X-Tenant: 7" in lines
        assert program.terminate() == 0
        assert SECRET not in program.output


@pytest.mark.parametrize(
    ("command", "library"),
    [(["bridge", "--service", "s", "--to", "http://host/"], "aiohttp"), (["gateway"], "starlette")],
)
def test_without_the_extra(command: list[str], library: str) -> None:
    # None in there: as if it were not installed.
    code = f"import sys; sys.modules[{library!r}] = None; from jsonrpc_amqp.cli import main; main({command!r})"
    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"needs {library}: pip install 'jsonrpc-amqp[http]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("adapters.jsonrpclib", "jsonrpclib", "jsonrpclib"),
        ("adapters.tinyrpc", "tinyrpc", "tinyrpc"),
        ("adapters.pjrpc", "pjrpc", "pjrpc"),
        ("http.bridge", "aiohttp", "http"),
        ("http.gateway", "starlette", "http"),
    ],
)
def test_what_an_import_without_its_library_says(module: str, library: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from jsonrpc_amqp import MissingExtra\n"
        f"try:\n    import jsonrpc_amqp.{module}\n"
        f"except MissingExtra as error:\n    assert isinstance(error, ImportError); print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"jsonrpc_amqp.{module} needs {library}" in done.stdout, done.stderr
    assert f"pip install 'jsonrpc-amqp[{extra}]'" in done.stdout
