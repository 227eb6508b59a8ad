"""What ``HttpBridge`` makes of an HTTP server, good or bad."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jsonrpc_amqp import NO_ANSWER, NOT_DELIVERED, CallTimeout, Client, Server
from jsonrpc_amqp.amqp.memory import disconnect
from jsonrpc_amqp.http.bridge import HttpBridge

from ...bridged import BATCH, CALL, NOTIFICATION, ZERO, Bridged, always, anonymous, ids_of, with_id
from ...exhausted import NoThread, no_descriptor
from ...http_tools import Asked, RawServer, free_port, ok, unread
from ...tools import wait_for

RESPONSE = b'{"jsonrpc":"2.0","result":1,"id":"a.b"}'


@pytest.fixture
def bridging(service: str) -> Iterator[Bridged]:
    """On memory://, since these tests are about HTTP."""
    with Bridged(f"memory://{service}", service, max_size=100_000) as bridged:
        yield bridged


def test_bodies_pass_in_both_directions_with_other_ids(service: str) -> None:
    body = b' {"id" :"\\u0061.b","jsonrpc":"2.0", "method":"m", "params": [ 1e2, 1.10 ]} '
    answer = b'{ "id": "a.b",\n"jsonrpc": "2.0", "result": { "x" :1e2 }}'
    headers = {"Authorization": "Bearer x y", "content-type": "application/json-rpc"}
    with Bridged(f"memory://{service}", service, headers=headers) as bridged:
        bridged.answer = always(ok(answer))
        assert bridged.client.send_raw(body) == b'{"id":"\\u0061.b","jsonrpc":"2.0","result":{ "x" :1e2 }}'
        (asked,) = bridged.http.asked
        own = json.loads(asked.body)["id"]
        assert asked.body == b'{"id":"%s","jsonrpc":"2.0","method":"m","params":[ 1e2, 1.10 ]}' % own.encode()
        assert asked.head.startswith(b"POST /rpc HTTP/1.1\r\n")
        lines = asked.head.lower().splitlines()
        assert b"authorization: bearer x y" in lines
        assert b"accept-encoding: identity" in lines
        assert [each for each in lines if each.startswith(b"content-type")] == [b"content-type: application/json-rpc"]


def test_the_connection_is_kept(bridging: Bridged) -> None:
    bridging.answer = always(ok(RESPONSE))
    for _ in range(20):
        assert bridging.ask(CALL)["result"] == 1
    assert bridging.http.connections == 1
    assert bridging.bridge.stats() == ZERO | {"answered": 20}


def dripping(text: bytes, *, from_byte: int) -> Callable[[socket.socket, Asked], object]:
    """Write one byte at a time, so that there is always progress, and never an end."""

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
    "another id": (always(ok(RESPONSE.replace(b"a.b", b"other"))), "no JSON-RPC"),
    "another version": (always(ok(b'{"result": 1, "error": null, "id": "a.b"}')), "no JSON-RPC"),
    "no result": (always(ok(b'{"jsonrpc": "2.0", "id": "a.b"}')), "no JSON-RPC"),
    "empty array": (always(ok(b"[]")), "no JSON-RPC"),
    "other json": (always(ok(b'{"ok": true}')), "no JSON-RPC"),
    "too deep": (always(ok(b"[" * 50_000)), "no JSON-RPC"),
    "compressed": (always(ok(b"\x1f\x8b\x08", "200 OK", "Content-Encoding: gzip")), "content encoding 'gzip', which"),
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
def test_what_is_no_response_becomes_an_error_of_each_call(bridging: Bridged, fault: str) -> None:
    bridging.answer, message = FAULTS[fault]
    answer = bridging.ask(CALL)
    assert answer["id"] == "a.b"
    assert answer["error"]["code"] == NO_ANSWER
    assert message in answer["error"]["message"]
    assert answer["error"]["data"] == {"may_have_run": True}
    assert [(each["id"], each["error"]["code"]) for each in bridging.ask(BATCH)] == [(1, NO_ANSWER), ("b", NO_ANSWER)]
    # Each body is posted once, whatever the result is.
    assert [anonymous(each.body) for each in bridging.http.asked] == [anonymous(CALL), anonymous(BATCH)]
    assert bridging.server.stats()["failed"] == 2


def test_what_a_bad_answer_was_is_in_the_log(bridging: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    location = "Location: http://joe:s3cret@host/login?token=s3cret"
    bridging.answer = always(ok(b"<a href='http://joe:s3cret@host'>\x1b", "302 Found", location))
    assert "host" not in bridging.ask(CALL)["error"]["message"]
    assert bridging.ask(NOTIFICATION) is None
    wait_for(lambda: bridging.bridge.stats()["lost_notifications"] == 1)
    lines = [each.getMessage() for each in caplog.records if each.name == "jsonrpc_amqp.bridge"]
    details = (
        "(HTTP status 302, Content-Type 'application/json', Content-Length '34', Location 'http://***@host/login?...', "
        "34 bytes: \"<a href='http://***@host'>\\x1b\")"
    )
    assert [details in each for each in lines] == [True, True]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("kind", ["application/json; profile=x", "application/json;", "text/plain; charset=utf-8"])
def test_the_content_type_of_a_response_does_not_matter(bridging: Bridged, kind: str) -> None:
    response = RESPONSE
    bridging.answer = always(ok(response).replace(b"application/json", kind.encode()))
    assert bridging.client.send_raw(CALL) == response


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


def test_an_error_with_an_http_error_status_is_a_response(bridging: Bridged) -> None:
    response = b'{"jsonrpc":"2.0","error":{"code": -32601, "message": "no"},"id":"a.b"}'
    bridging.answer = always(ok(response, "404 Not Found"))
    assert bridging.client.send_raw(CALL) == response


def test_each_call_of_a_batch_gets_a_response(bridging: Bridged) -> None:
    """As with servers that take a call with an id of null for a notification."""
    call = {"jsonrpc": "2.0", "method": "m"}
    first, second = {"jsonrpc": "2.0", "result": 1, "id": 1}, {"jsonrpc": "2.0", "result": 2, "id": "b"}
    body = json.dumps([{**call, "id": 1}, call, {**call, "id": None}, {**call, "id": "b"}]).encode()
    more: list[Any] = [{**second, "id": 7}, {"id": None}]

    def respond(sock: socket.socket, asked: Asked) -> None:
        one, null, two = ids_of(asked)
        assert null is None
        sock.sendall(ok(json.dumps([{**second, "id": two}, *more, {**first, "id": one}]).encode()))

    bridging.answer = respond
    replies = bridging.ask(body)
    assert (replies[0], replies[2], len(replies)) == (first, second, 3)
    assert (replies[1]["id"], replies[1]["error"]["code"]) == (None, NO_ANSWER)
    assert replies[1]["error"]["data"] == {"may_have_run": True}
    assert bridging.bridge.stats() == ZERO | {"answered": 1, "incomplete": 1}
    assert bridging.server.stats()["failed"] == 1
    more = [{**first, "id": None}]
    assert bridging.ask(body) == [second, {**first, "id": None}, first]


def test_requests_of_another_version_have_responses_of_another_version(bridging: Bridged) -> None:
    bridging.answer = always(ok(b'{"result": 1, "error": null, "id": "a.b"}'))
    response = b'{"result":1,"error":null,"id":7}'
    assert bridging.client.send_raw(b'{"method": "m", "params": [], "id": 7}') == response


def test_its_event_loop_has_ended(bridging: Bridged) -> None:
    bridging.answer = always(ok(RESPONSE))
    assert bridging.client.send_raw(CALL) == RESPONSE
    thread = bridging.bridge._thread
    assert thread is not None
    thread.stop()
    thread.join(10)
    assert bridging.client.send_raw(CALL) == RESPONSE


def test_closed_while_requests_are_in_flight(bridging: Bridged) -> None:
    begun = threading.Semaphore(0)

    def wait_for_the_end(sock: socket.socket, _asked: Asked) -> None:
        begun.release()
        sock.recv(1)

    bridging.answer = wait_for_the_end
    single, batch = bridging.client.submit_raw(CALL), bridging.client.submit_raw(BATCH)
    assert begun.acquire(timeout=10)
    assert begun.acquire(timeout=10)
    bridging.bridge.close()
    for error in [json.loads(single.result(10) or b""), *json.loads(batch.result(10) or b"")]:
        assert error["id"] in ("a.b", 1, "b")
        assert (error["error"]["code"], error["error"]["data"]) == (NO_ANSWER, {"may_have_run": True})
    assert bridging.bridge.stats()["failed"] == 2


def test_what_is_no_json_is_not_forwarded(bridging: Bridged) -> None:
    assert bridging.ask(b"{")["error"]["code"] == -32700
    assert bridging.ask(json.dumps([1] * 1001).encode())["error"]["code"] == -32600
    assert bridging.http.asked == []


def test_no_server_at_the_url(service: str) -> None:
    with (
        HttpBridge(f"http://127.0.0.1:{free_port()}", timeout=0.3) as refused,
        HttpBridge("http://nowhere.invalid/", timeout=3) as unknown,
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
    bridging.answer = always(ok(RESPONSE))
    assert bridge(CALL) == RESPONSE
    bridge.close()
    bridge.close()
    assert json.loads(bridge(CALL) or b"")["error"]["code"] == NOT_DELIVERED


# -- what comes behind a response --------------------------------------------------------------------------


EVE = b'{"jsonrpc":"2.0","result":"EVE WROTE THIS","id":%d}'
NO_ID = b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"EVE WROTE THIS"},"id":null}'
TEXTS = {
    "a response": ok(EVE % 1),
    "an error without an id": ok(NO_ID),
    "the begin of a response": ok(EVE % 1)[:20],
    "no HTTP": b"EVE WROTE THIS",
    "an error of HTTP": ok(b"", "503 Busy"),
}


def victims_call(number: int = 1) -> bytes:
    return b'{"jsonrpc": "2.0", "method": "m", "id": %d}' % number


def genuine(sock: socket.socket, asked: Asked) -> bool:
    request = json.loads(asked.body)
    if isinstance(request, list):
        [request] = request
    response = {"jsonrpc": "2.0", "result": "genuine", "id": request.get("id")}
    sock.sendall(ok(json.dumps([response] if asked.body.startswith(b"[") else response).encode()))
    return True


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_comes_behind_a_response_answers_nobody(bridging: Bridged, text: str, at_once: bool) -> None:
    """The connection is closed, and the next call has another one."""
    may_write, written = threading.Event(), threading.Event()

    def respond(sock: socket.socket, asked: Asked) -> bool:
        if b"evil" not in asked.body:
            return genuine(sock, asked)
        answer = with_id(ok(RESPONSE), asked)
        sock.sendall(answer + TEXTS[text] if at_once else answer)
        if not at_once:
            assert may_write.wait(10)
            sock.sendall(TEXTS[text])
        wait_for(lambda: unread(sock) == 0)
        written.set()
        return True

    bridging.answer = respond
    assert bridging.ask(victims_call())["result"] == "genuine"
    answer = bridging.ask(b'{"jsonrpc": "2.0", "method": "evil", "id": "a.b"}')
    assert answer.get("result", NO_ANSWER) in (1, NO_ANSWER)  # what comes at once may spoil it
    may_write.set()
    assert written.wait(10)
    for _ in range(3):
        assert bridging.ask(victims_call())["result"] == "genuine"
    assert bridging.http.connections == 2


REQUESTS = {
    "a call": victims_call(),
    "a batch": b"[" + victims_call() + b"]",
    "a call without an id that can be used": b'{"jsonrpc": "2.0", "method": "m", "id": null}',
    "a call of another version": b'{"method": "m", "params": [], "id": 1}',
    "a notification": NOTIFICATION,
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_what_comes_after_the_next_request_answers_nobody(bridging: Bridged, text: str, request_: str) -> None:
    """The HTTP server writes it while it works on the request of another caller."""
    reused: list[bool] = []

    def respond(sock: socket.socket, asked: Asked) -> bool:
        if sock in seen and len(bridging.http.asked) == 2:
            reused.append(True)
            sock.sendall(TEXTS[text])
            return False
        seen.append(sock)
        return genuine(sock, asked)

    seen: list[socket.socket] = []
    bridging.answer = respond
    assert bridging.ask(victims_call())["result"] == "genuine"
    answer = bridging.ask(REQUESTS[request_])
    assert "EVE" not in json.dumps(answer)
    wait_for(lambda: bridging.http.asked[1:])
    if request_ in ("a call", "a batch"):
        [error] = answer if isinstance(answer, list) else [answer]
        assert (error["id"], error["error"]["code"], reused) == (1, NO_ANSWER, [True])
    elif answer is not None:
        assert answer["result"] == "genuine"
    # The next one is not answered by what was meant for this one.
    assert bridging.ask(victims_call())["result"] == "genuine"
    wait_for(lambda: bridging.bridge.stats()["answered"] + bridging.bridge.stats()["failed"] == 3)
    assert bridging.bridge.stats()["lost_notifications"] == 0


def test_a_server_without_ids_gets_a_connection_for_each_request(bridging: Bridged) -> None:
    bridging.answer = genuine
    for _ in range(3):
        assert bridging.ask(victims_call())["result"] == "genuine"
    assert bridging.http.connections == 1
    bridging.answer = always(ok(NO_ID))
    first = bridging.ask(victims_call())
    assert (first["id"], first["error"]["code"]) == (1, NO_ANSWER)
    for _ in range(3):
        answer = bridging.ask(victims_call())
        assert answer["error"] == {"code": -32600, "message": "EVE WROTE THIS"}
    assert bridging.http.connections == 4


def test_no_credentials_in_its_log(service: str, caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp's exceptions have the headers of the request; a short text of theirs is not cut before these."""
    caplog.set_level("DEBUG", "jsonrpc_amqp")
    with Bridged(f"memory://{service}", service, headers={"A": "sentinel-7f3a", "Host": "h"}) as bridged:
        for answer in (b"x", b"HTTP/1.1 \r\n\r\n", b"SSH-2.0\r\n", CHUNKED + b"z\r\n", b""):
            bridged.answer = always(answer, keep=False)
            assert bridged.ask(CALL)["error"]["code"] == NO_ANSWER

        def repeat(sock: socket.socket, asked: Asked) -> None:
            sock.sendall(ok(asked.head, "500 Oops"))

        bridged.answer = repeat
        assert bridged.ask(CALL)["error"]["code"] == NO_ANSWER
    assert "sentinel" not in caplog.text
    assert "'Host'" not in caplog.text
    assert "500" in caplog.text
    assert "ServerDisconnectedError" in caplog.text


# -- an HTTP server that cannot be reached ---------------------------------------------------------------------


def test_calls_wait_for_a_server_that_cannot_be_reached(service: str, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    url = f"memory://{service}"
    with HttpBridge(f"http://127.0.0.1:{port}/", timeout=20) as bridge:
        server = Server(url, service, dispatcher=bridge, concurrency=8)
        with server, Client(url, service, timeout=20) as client:
            calls = [client.submit_raw(victims_call(number)) for number in range(50)]
            client.send_raw(NOTIFICATION)
            wait_for(lambda: "next attempt in" in caplog.text)
            # One of them makes attempts; as many wait as the server holds, and the others stay in the queue.
            wait_for(lambda: caplog.text.count("next attempt in") > 1)
            assert server.stats()["failed"] == 0
            assert not any(call.done() for call in calls)
            with RawServer(genuine, port) as http:
                assert {json.loads(call.result(20) or b"")["result"] for call in calls} == {"genuine"}
                wait_for(lambda: len(http.asked) == 51)
                # The answer to the notification may come after all others.
                wait_for(
                    lambda: bridge.stats() == ZERO | {"answered": 51, "outages": 1}, told=lambda: str(bridge.stats())
                )


def test_a_call_is_told_before_its_time_is_up(service: str) -> None:
    url = f"memory://{service}"
    with (
        HttpBridge(f"http://127.0.0.1:{free_port()}/") as bridge,
        Server(url, service, dispatcher=bridge),
        Client(url, service) as client,
    ):
        began = time.monotonic()
        answer = json.loads(client.send_raw(CALL, timeout=3) or b"")
        assert time.monotonic() - began >= 2
        assert (answer["id"], answer["error"]["code"]) == ("a.b", NOT_DELIVERED)
        assert answer["error"]["message"] == "the HTTP server cannot be reached: Connection refused"


def test_a_log_handler_that_calls_through_it(caplog: pytest.LogCaptureFixture) -> None:
    """On the bridge's own thread it would wait for itself, all the more while the HTTP server cannot be reached."""
    caplog.set_level("DEBUG", "jsonrpc_amqp")
    answers: list[bytes | None] = []
    with HttpBridge(f"http://127.0.0.1:{free_port()}/", timeout=0.5) as bridge:

        class Calling(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if threading.current_thread().name == "bridge" and not answers:
                    answers.append(bridge(CALL))

        handler = Calling()
        logging.getLogger("jsonrpc_amqp.bridge").addHandler(handler)
        try:
            assert json.loads(bridge(CALL) or b"")["error"]["code"] == NOT_DELIVERED
        finally:
            logging.getLogger("jsonrpc_amqp.bridge").removeHandler(handler)
    assert b"would wait for itself" in (answers[0] or b"")


@pytest.mark.parametrize("end", ["drain", "close"])
def test_what_waits_when_the_server_drains_goes_back_to_the_queue(service: str, end: str) -> None:
    url = f"memory://{service}"
    bridge = HttpBridge(f"http://127.0.0.1:{free_port()}/")
    server = Server(url, service, dispatcher=bridge, concurrency=2).start()
    with Client(url, service, timeout=20) as client:
        call = client.submit_raw(CALL)
        client.send_raw(NOTIFICATION)
        wait_for(lambda: bridge.stats()["outages"] and server.stats()["received"] == 2)
        if end == "close":
            bridge.close()
            assert json.loads(call.result(10) or b"")["error"]["code"] == NOT_DELIVERED
            wait_for(lambda: bridge.stats()["lost_notifications"] == 1)
            assert server.stop(10)
            return
        assert server.stop(10)
        assert bridge.stats() == ZERO | {"given_back": 2, "outages": 1}
        with RawServer(genuine) as http, HttpBridge(http.url) as other, Server(url, service, dispatcher=other):
            assert json.loads(call.result(10) or b"")["result"] == "genuine"
            wait_for(lambda: len(http.asked) == 2)
    bridge.close()


def test_what_waits_when_the_connection_is_lost_is_sent_once(service: str) -> None:
    """The broker delivers it again, so the first delivery must not be sent as well."""
    url, port = f"memory://{service}", free_port()
    with (
        HttpBridge(f"http://127.0.0.1:{port}/") as bridge,
        Server(url, service, dispatcher=bridge, concurrency=2) as server,
        Client(url, service, timeout=20) as client,
    ):
        client.send_raw(NOTIFICATION)
        wait_for(lambda: bridge.stats()["outages"])
        disconnect(service)
        wait_for(lambda: server.stats()["received"] == 2)
        wait_for(lambda: bridge.stats()["given_back"] == 1)
        with RawServer(genuine, port) as http:
            wait_for(lambda: bridge.stats()["answered"] == 1)
            assert len(http.asked) == 1


# -- the process around it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exhaust", [NoThread, no_descriptor])
def test_without_a_thread_or_a_descriptor_a_call_says_so_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, exhaust: Callable[[pytest.MonkeyPatch], object]
) -> None:
    answer = RESPONSE
    with RawServer(always(ok(answer), keep=False)) as http, HttpBridge(http.url) as bridge:
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            exhaust(patch)
            error = json.loads(bridge(CALL) or b"")["error"]
        assert error["code"] == NOT_DELIVERED
        assert "can have no thread" in error["message"]
        assert len(os.listdir("/proc/self/fd")) == before
        assert bridge(CALL) == answer


def test_a_bridge_that_is_dropped_warns_and_ends() -> None:
    def alive() -> bool:
        return any(thread.name == "bridge" for thread in threading.enumerate())

    with RawServer(always(ok(RESPONSE), keep=False)) as http:
        bridge = HttpBridge(http.url)
        bridge(CALL)
        assert alive()
        with pytest.warns(ResourceWarning, match="unclosed HttpBridge to 'http://127"):
            del bridge
        wait_for(lambda: not alive())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # about a fork with threads
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    answer = RESPONSE
    with RawServer(always(ok(answer), keep=False)) as http, HttpBridge(http.url, timeout=20) as bridge:
        assert bridge(CALL) == answer
        child = os.fork()
        if child == 0:
            os._exit(0 if bridge(CALL) == answer else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bridge(CALL) == answer
