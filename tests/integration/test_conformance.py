"""The conformance checks: our server passes them, and each fault is found by name."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pytest

from examples.conformance_service import methods
from jsonrpc_amqp import CallTimeout, Dispatcher, Server, TransportError, conformance
from jsonrpc_amqp.amqp.base import Delivery, Publish
from jsonrpc_amqp.wire.publish import reply_message
from jsonrpc_amqp.wire.reply_route import Route, reply_route

from ..broker import Broker
from ..command import run

Fault = dict[str, Callable[..., Any]]
COMMAND = "conformance"


def test_our_server_passes(url: str, service: str) -> None:
    with Server(url, service, methods=methods):
        done = run(COMMAND, "--service", service, url=url)
    assert done.returncode == 0, done.stdout
    *rows, summary = done.stdout.splitlines()
    assert len(rows) > 100
    assert summary == f"{len(rows)} of {len(rows)} checks passed"
    assert all(row.startswith("ok ") for row in rows)
    names = [row.split(None, 2)[2] for row in rows]
    assert len(set(names)) == len(names), "a fault could not be named"
    for example in json.loads((protocol_vectors() / "specification.json").read_text())["examples"]:
        assert example["description"] in names


def protocol_vectors() -> Any:
    return Path(__file__).parents[1] / "vectors"


def test_no_server(url: str, service: str) -> None:
    with Server(url, service):
        pass  # leaves the queue
    done = run(COMMAND, "--service", service, "--timeout", "0.3", url=url)
    assert done.returncode == 3
    assert f"no server serves '{service}'" in done.stderr
    done = run(COMMAND, "--service", f"{service}-never", "--timeout", "0.3", url=url)
    assert done.returncode == 3
    assert "no queue is bound" in done.stderr
    assert run(COMMAND, "--service", "a.request", url=url).returncode == 2


def test_a_filter_that_fits_nothing_is_no_success(url: str, service: str) -> None:
    with Server(url, service, methods=methods):
        done = run(COMMAND, "--service", service, "--only", "zzz", url=url)
        assert (done.returncode, done.stdout) == (2, "")
        assert "no check has 'zzz'" in done.stderr
        done = run(COMMAND, "--service", service, "--only", "SPECIFICATION", "--only", "the id 1 comes", url=url)
        assert done.returncode == 0, done.stdout
        assert {row.split()[1] for row in done.stdout.splitlines()[:-1]} == {"specification", "wire"}
        assert done.stdout.endswith("16 of 16 checks passed\n")


def test_a_service_that_is_another(url: str, service: str) -> None:
    with Server(url, service, methods={"subtract": methods["subtract"], "sum": methods["sum"]}):
        done = run(COMMAND, "--service", service, url=url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no method get_data, update, notify_hello" in done.stderr
    with Server(url, f"{service}2", methods={**methods, "foobar": lambda: 1}):
        done = run(COMMAND, "--service", f"{service}2", url=url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has a method foobar" in done.stderr


def test_a_queue_of_another_name(url: str, service: str) -> None:
    with Server(url, service, queue=f"{service}.work", methods=methods):
        done = run(COMMAND, "--service", service, url=url)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"no queue '{service}_req'" in done.stderr
        done = run(COMMAND, "--service", service, "--queue", f"{service}.work", "--failed", url=url)
        assert done.returncode == 0, done.stdout


def test_a_server_that_dies_during_the_checks(url: str, service: str) -> None:
    dead = threading.Event()

    def die(body: bytes, _properties: Any) -> bytes | None:
        if body == b"hello":
            dead.set()
        return None if dead.is_set() else body

    with Faulty(url, service, {"body": die}):
        began = time.monotonic()
        results = conformance.run(url, service, timeout=1)
        seen: list[conformance.Result] = []
        with pytest.raises(CallTimeout, match=r"any more since the check 'no JSON: -32700'.* \d+ checks were not run"):
            seen.extend(results)
        assert time.monotonic() - began < 20
    assert seen[-1].name == "no JSON: -32700"
    assert [each.name for each in seen if each.fault] == ["no JSON: -32700"]


def test_the_servers_own_words_are_shown(url: str, service: str) -> None:
    own = edited(lambda a: {**a, "error": {"code": 5, "message": "in my words"}} if "error" in a else a)
    with Faulty(url, service, {"answer": own}):
        (result,) = conformance.run(url, service, timeout=3, only=["rpc call of non-existent method"])
    assert '"message": "in my words"' in (result.fault or "")


# -- faulty servers ---------------------------------------------------------------------------------------


class Faulty:
    """A server that keeps the contract, except for the steps that ``fault`` replaces."""

    def __init__(self, url: str, service: str, fault: Fault) -> None:
        self._service = service
        self._fault = fault
        self._dispatch = Dispatcher(methods)
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        queue = f"{service}_req"
        self._channel.exchange_declare("jsonrpc", "topic", durable=True)
        self._channel.queue_declare(queue, durable=True)
        self._channel.queue_bind(queue, "jsonrpc", f"{service}.request.#")
        self._channel.basic_consume(queue, self._serve)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _do(self, step: str, value: Any, *more: Any) -> Any:
        return self._fault[step](value, *more) if step in self._fault else value

    def _serve(self, channel: Any, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        body = self._do("body", body, properties)
        answer = self._do("answer", self._dispatch(body) if body is not None else None, body)
        if answer is not None:
            for each in self._do("publishes", [self._publish(method, properties, answer)]):
                there = pika.BasicProperties(
                    **self._do(
                        "properties",
                        {
                            "content_type": each.content_type,
                            "delivery_mode": 2 if each.persistent else 1,
                            "correlation_id": each.correlation_id,
                            "expiration": None if each.expiration_ms is None else str(each.expiration_ms),
                        },
                        properties,
                    )
                )
                channel.basic_publish(each.exchange, each.routing_key, each.body, there)
        channel.basic_ack(method.delivery_tag)

    def _publish(self, method: Any, properties: pika.BasicProperties, answer: bytes) -> Publish:
        delivery = Delivery(
            1, 1, False, method.exchange, method.routing_key, b"",
            correlation_id=properties.correlation_id, reply_to=self._do("reply_to", properties.reply_to),
        )  # fmt: skip
        if delivery.reply_to is not None and not (self._fault.get("any reply_to") or _may(delivery, self._service)):
            return Publish("", "nobody-there", answer)
        route = reply_route(replace_reply_to(delivery), service=self._service, exchange="jsonrpc")
        if delivery.reply_to is not None:
            route = Route("", delivery.reply_to, False)
        if route is None:
            return Publish("", "nobody-there", answer)
        ms = (properties.headers or {}).get("timeout-ms")
        left = ms if type(ms) is int and ms > 0 else None
        publish = reply_message(delivery, answer, route=route, now=0, deadline=None if left is None else left / 1000)
        return replace(publish, routing_key=self._do("routing_key", publish.routing_key, method.routing_key))

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._connection.process_data_events(time_limit=0.02)
        self._connection.close()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def replace_reply_to(delivery: Delivery) -> Delivery:
    return Delivery(1, 1, False, delivery.exchange, delivery.routing_key, b"")


def _may(delivery: Delivery, service: str) -> bool:
    return reply_route(delivery, service=service, exchange="jsonrpc") is not None


def edited(change: Callable[[Any], Any]) -> Callable[[bytes | None, bytes], bytes | None]:
    """Change the value of each single answer."""

    def edit(answer: bytes | None, _request: bytes) -> bytes | None:
        value = None if answer is None else json.loads(answer)
        return json.dumps(change(value)).encode() if isinstance(value, dict) else answer

    return edit


def lenient(body: bytes, _properties: Any) -> bytes:
    """Read what Python's own parser takes."""
    try:
        return json.dumps(json.loads(body)).replace("NaN", "23").encode()
    except ValueError:
        return body


def without_junk(body: bytes, _properties: Any) -> bytes | None:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return None
    return body


def by_position(body: bytes, _properties: Any) -> bytes:
    value = json.loads(body)
    if isinstance(value, dict) and isinstance(value.get("params"), dict):
        value["params"] = list(value["params"].values())
    return json.dumps(value).encode()


def inflate(body: bytes, properties: Any) -> bytes | None:
    return None if properties.content_encoding == "gzip" else body


def shallow(body: bytes, _properties: Any) -> bytes | None:
    return None if body.startswith(b"[[[[") else body


def first_member(answer: bytes, _request: bytes) -> bytes:
    value = json.loads(answer)
    return json.dumps(value[0]).encode() if isinstance(value, list) else answer


FAULTS: dict[str, tuple[Fault, str]] = {
    "ids become strings": ({"answer": edited(lambda a: {**a, "id": str(a["id"])})}, "the id 1 comes back"),
    "null ids are left out": (
        {"answer": edited(lambda a: a if a["id"] is not None else {k: v for k, v in a.items() if k != "id"})},
        "the id null comes back",
    ),
    "floats are rounded": (
        {"answer": edited(lambda a: {**a, "id": int(a["id"]) if type(a["id"]) is float else a["id"]})},
        "the id 1.5 comes back",
    ),
    "notifications are answered": (
        {"answer": lambda answer, _request: answer or b'{"jsonrpc":"2.0","result":null,"id":null}'},
        "a Notification (1)",
    ),
    "result and error": (
        {"answer": edited(lambda a: {"error": None, **a})},
        "rpc call with positional parameters (1)",
    ),
    "no version": (
        {"answer": edited(lambda a: {k: v for k, v in a.items() if k != "jsonrpc"})},
        "rpc call with positional parameters (1)",
    ),
    "codes of its own": (
        {"answer": edited(lambda a: {**a, "error": {**a["error"], "code": -32000}} if "error" in a else a)},
        "rpc call of non-existent method",
    ),
    "an error without a message": (
        {"answer": edited(lambda a: {**a, "error": {"code": a["error"]["code"]}} if "error" in a else a)},
        "rpc call of non-existent method",
    ),
    "a batch is answered with its first member": (
        {"answer": first_member},
        "rpc call with an invalid Batch (but not empty)",
    ),
    "names of params are ignored": ({"body": by_position}, "rpc call with named parameters (1)"),
    "no correlation_id": (
        {"properties": lambda p, _request: {**p, "correlation_id": None}},
        "correlation_id comes back, whatever it is",
    ),
    "content_encoding": (
        {"properties": lambda p, _request: {**p, "content_encoding": "utf-8"}},
        "an answer has the properties that are due, and no other",
    ),
    "no content_type": (
        {"properties": lambda p, _request: {**p, "content_type": None}},
        "an answer has the properties that are due, and no other",
    ),
    "persistent answers": (
        {"properties": lambda p, _request: {**p, "delivery_mode": 2}},
        "an answer has the properties that are due, and no other",
    ),
    "headers come back": (
        {"properties": lambda p, request: {**p, "headers": request.headers}},
        "an answer has the properties that are due, and no other",
    ),
    "answers live for ever": (
        {"properties": lambda p, _request: {**p, "expiration": None}},
        "an answer has the properties that are due, and no other",
    ),
    "message_id comes back": (
        {"properties": lambda p, request: {**p, "message_id": request.message_id}},
        "answer, publish: the request's user_id, message_id and headers do not come back",
    ),
    "reply_to is ignored": ({"reply_to": lambda _reply_to: None}, "reply_to a queue of the client, over the exchange"),
    "every word request is changed": (
        {"routing_key": lambda key, asked: asked.replace("request", "response") if "response" in key else key},
        "reply: client and qid called request",
    ),
    "junk is not answered": ({"body": without_junk}, "no JSON: -32700"),
    "Python's own JSON": ({"body": lenient}, "NaN: -32700"),
    "deep nesting kills it": ({"body": shallow}, "nested 100,000 times: -32700"),
    "bodies are inflated": ({"body": inflate}, "content_type and content_encoding of a request change nothing"),
    "anybody's queue is written to": (
        {"any reply_to": lambda: True},
        "reply_to a queue of requests, or of the broker's own, is not answered",
    ),
    "answers come twice": ({"publishes": lambda each: each * 2}, "direct reply-to, over the exchange"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_name(url: str, service: str, name: str) -> None:
    fault, check = FAULTS[name]
    with Faulty(url, service, fault):
        results = list(conformance.run(url, service, timeout=0.7, only=[check]))
    failed = [result.name for result in results if result.fault is not None]
    assert check in failed, results


def test_the_faulty_servers_have_no_other_fault(url: str, service: str) -> None:
    checks = {check for _fault, check in FAULTS.values()}
    with Faulty(url, service, {}):
        for check in sorted(checks):
            assert [each for each in conformance.run(url, service, timeout=3, only=[check]) if each.fault] == []


def test_a_server_that_gives_requests_back_is_found(url: str, service: str) -> None:
    with taking_and_giving_back(url, service):
        results = list(conformance.run(url, service, timeout=3, only=["a request is done with once"]))
    assert "the answer came twice" in (results[0].fault or "")


@contextmanager
def taking_and_giving_back(url: str, service: str) -> Iterator[None]:
    """Serve each request, and put it back into the queue where it can be answered again."""

    class GivingBack(Faulty):
        def _serve(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
            answer = self._dispatch(body)
            publish = self._publish(method, properties, answer or b"")
            channel.basic_publish(publish.exchange, publish.routing_key, publish.body)
            channel.basic_reject(method.delivery_tag, requeue=not method.redelivered)

    with GivingBack(url, service, {}):
        yield


def test_a_lost_broker_ends_the_run(fragile: Broker, service: str) -> None:
    node = fragile
    with Server(node.url, service, methods=methods):
        results = conformance.run(node.url, service)
        next(results)
        node.kill()
        with pytest.raises(TransportError):
            list(results)
