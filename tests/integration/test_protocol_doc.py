"""docs/protocol.md, taken at its word: by a client and a server that know nothing else, and against our constants."""

from __future__ import annotations

import inspect
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest

from jsonrpc_amqp import AccessRefused, Client, Dispatcher, MethodNotFound, Server, current_request
from jsonrpc_amqp.amqp.base import JSON, Delivery, Publish
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.options import CONCURRENCY, PREFETCH
from jsonrpc_amqp.wire.names import (
    _RESERVED_WORDS,
    DEFAULT_EXCHANGE,
    MAX_KEY_BYTES,
    MAX_QID_BYTES,
    MAX_SERVICE_BYTES,
    MAX_USER_BYTES,
    NO_QID,
    TOKEN_LENGTH,
    client_word,
    qid_of,
    reply_binding,
    request_binding,
    request_queue,
)
from jsonrpc_amqp.wire.publish import MAX_EXPIRATION_MS, Address, call_message, notification_message, reply_message
from jsonrpc_amqp.wire.reply_route import Route, reply_route

from ..broker import Broker
from ..tools import wait_for
from ..unit.wire.tools import request_key

DOC = Path(__file__).parents[2] / "docs" / "protocol.md"
TEXT = DOC.read_text(encoding="utf-8")
PATIENCE = 10.0


# -- reading the document -------------------------------------------------------------------------------------


def section(title: str) -> str:
    """Give the text below a heading, down to the next heading."""
    text: str = re.findall(rf"(?ms)^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", TEXT)[0]
    return text


def flat(title: str) -> str:
    """Give a section on one line."""
    return re.sub(r"\s+", " ", section(title))


def uncut(title: str) -> list[list[list[str]]]:
    """Give the tables of a section: rows of cells, the heading row left out."""
    found = re.findall(r"(?m)(?:^ *\|.*\n)+", section(title))
    return [[cells(line) for line in table.splitlines()[2:]] for table in found]


def cells(line: str) -> list[str]:
    return [text.strip().replace("\\|", "|") for text in re.split(r"(?<!\\)\|", line)[1:-1]]


def words(text: str) -> list[str]:
    """Give what stands between backticks."""
    return re.findall(r"`([^`]*)`", text)


def number_in(text: str) -> int:
    return int(re.findall(r"\d+", text.replace(",", ""))[0])


def default(callable: Callable[..., Any], name: str) -> Any:
    return inspect.signature(callable).parameters[name].default


def test_json_in_the_text_parses_unless_it_is_shown_as_wrong() -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", TEXT)
    bodies = [each for each in words(text) if each.startswith('{"')]
    wrong = {words(row[0])[0] for row in uncut("Errors")[1] if row[1] == "-32700" and words(row[0])}
    assert len(bodies) >= 10
    assert len(wrong) == 2
    for body in set(bodies) - wrong:
        assert "jsonrpc" in json.loads(body)


def test_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", TEXT)}
    targets = re.findall(r"\]\(([^)]*)\)", TEXT)
    assert len(targets) >= 8
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (DOC.parent / target).exists(), target


def test_all_vectors_are_listed() -> None:
    listed = set(re.findall(r"tests/vectors/(\w+\.json)\)", section("Test vectors")))
    assert listed == {path.name for path in (Path(__file__).parents[1] / "vectors").glob("*.json")}


# -- its tables and our constants ---------------------------------------------------------------------------------


def test_names() -> None:
    names = {thing: re.findall(r"`([^`]*)`", value) for thing, value in uncut("Names")[0]}
    address = Address("jsonrpc", "S", "CLIENT")
    assert names["exchange"] == [DEFAULT_EXCHANGE]
    assert default(Server, "exchange") == default(Client, "exchange") == DEFAULT_EXCHANGE
    assert names["request queue of service S"] == [request_queue("S"), request_binding("S")]
    assert names["routing key of a call"] == [request_key(address, "QID")]
    assert names["routing key of a notification"] == [address.notification_key, "S.request"]
    assert names["routing key of a reply"] == ["response"]
    assert names["reply queue of a client"] == [reply_binding("S", "CLIENT")]


def test_qids() -> None:
    (plain_ids, plain), (others, no_qid), (batch, _) = uncut("Names")[1]
    assert [qid_of(json.loads(id)) for id in words(plain_ids)] == words(plain)
    assert {qid_of(json.loads(id)) for id in words(others)} == set(words(no_qid)) == {NO_QID}
    assert qid_of("x" * number_in(others.split("`")[-1])) == NO_QID
    assert qid_of("x" * (number_in(others.split("`")[-1]) - 1)) != NO_QID
    assert batch == "a batch"


def test_numbers_among_the_names() -> None:
    longest = MAX_SERVICE_BYTES + len(".response.") + MAX_USER_BYTES + 1 + TOKEN_LENGTH
    longest += 1 + MAX_QID_BYTES
    assert TOKEN_LENGTH == 12
    for claim in (
        f"joined by dots; at most {MAX_SERVICE_BYTES} bytes",
        f"At most {MAX_USER_BYTES} bytes when encoded",
        "Twelve random characters",
        f"of 1 to {MAX_QID_BYTES} bytes",
        f"A routing key has at most {MAX_KEY_BYTES} bytes",
        f"no request key may be over {MAX_KEY_BYTES - 1}",
        f"the longest reply's key has {longest}",
    ):
        assert claim in flat("Names"), claim
    assert f"are from 1 to {MAX_EXPIRATION_MS}, rounded up" in flat("Properties")
    reserved = re.findall(r"no word is `(\w+)`, `(\w+)` or `(\w+)`", flat("Names"))[0]
    assert set(reserved) == _RESERVED_WORDS


def test_users_are_encoded_as_told() -> None:
    assert client_word("a.b~c_d-e*ü%", "TOKEN") == "a%2Eb~c_d-e%2A%C3%BC%25-TOKEN"
    assert client_word(None, "TOKEN") == "_-TOKEN"


def test_where_replies_go() -> None:
    rows = uncut("Where the reply goes")[0]
    assert len(rows) == 7
    for request, answer in rows:
        for name in words(request) if request.startswith("key") else words(request)[1:] + [""] * ("empty" in request):
            assert route_of(request, name) == told_route(answer, name), name


def route_of(request: str, name: str) -> Route | None:
    key, reply_to = (name, None) if request.startswith("key") else ("S.request.x.1", name)
    delivery = Delivery(1, 1, False, "jsonrpc", key, b"", reply_to=reply_to)
    return reply_route(delivery, service="S", exchange="jsonrpc")


def told_route(answer: str, name: str) -> Route | None:
    if answer == "nowhere":
        return None
    mandatory = "not" not in answer
    if answer.startswith("default exchange"):
        return Route("", name, mandatory)
    exchange, key = words(answer)
    return Route(exchange, key, mandatory)


def test_limits() -> None:
    rows = {what: (number_in(amount), answer) for what, amount, answer in uncut("Limits")[0]}
    size, depth, batch = rows["body"][0] << 20, rows["nesting"][0], rows["members of a batch"][0]
    method = rows["a method's name"][0]
    assert rows["result"][0] == rows["body"][0]
    for limited in (Server, Dispatcher):
        limits = [default(limited, name) for name in ("max_size", "max_depth", "max_batch", "max_method")]
        assert limits == [size, depth, batch, method]
    assert default(Client, "max_size") == size
    assert f"ours: {max(PREFETCH, 2 * CONCURRENCY)}" in section("A server, step by step")

    request = b'{"jsonrpc": "2.0", "method": "absent", "id": 1}'
    dispatch = Dispatcher(max_size=1 << 20)
    for what, body in [
        ("body", b" " * ((1 << 20) + 1)),
        ("nesting", b"[" * (depth + 1) + b"]" * (depth + 1)),
        ("members of a batch", b"[" + b",".join([request] * (batch + 1)) + b"]"),
    ]:
        response = json.loads(dispatch(body) or b"")
        assert (response["error"]["code"], response["id"]) == (-number_in(rows[what][1]), None)
    assert len(json.loads(dispatch(b"[" + b",".join([request] * batch) + b"]") or b"")) == batch
    for length, code in ((method + 1, -number_in(rows["a method's name"][1])), (method, -32601)):
        response = json.loads(dispatch(request.replace(b"absent", b"a" * length)) or b"")
        assert (response["error"]["code"], response["id"]) == (code, 1)
    large = Dispatcher({"large": lambda: "x" * (1 << 20)}, max_size=1 << 20)
    response = json.loads(large(b'{"jsonrpc": "2.0", "method": "large", "id": 1}') or b"")
    assert (response["error"]["code"], response["id"]) == (-number_in(rows["result"][1]), 1)


# -- the worked example -----------------------------------------------------------------------------------------


def example(number: int) -> tuple[str, dict[str, Any], bytes]:
    """Give routing key, properties and body of one of its tables."""
    publish, properties, body = (row[1] for row in uncut("A worked example")[number])
    exchange, key = words(publish)
    assert exchange == "jsonrpc"
    assert "mandatory" in publish
    plain, *headers = properties.split(", headers ")
    found: dict[str, Any] = dict(re.findall(r"`(\w+)` `?([^`,]+)`?", plain))
    found["delivery_mode"] = int(found["delivery_mode"])
    if headers:
        found["headers"] = {"timeout-ms": number_in(headers[0])}
    return key, found, words(body)[0].encode()


def described(message: Publish) -> tuple[str, dict[str, Any], bytes]:
    assert (message.exchange, message.mandatory) == ("jsonrpc", True)
    properties = {
        "content_type": JSON,
        "delivery_mode": 2 if message.persistent else 1,
        "correlation_id": message.correlation_id,
        "expiration": None if message.expiration_ms is None else str(message.expiration_ms),
        "headers": None if message.timeout_ms is None else {"timeout-ms": message.timeout_ms},
        "message_id": message.message_id,
        "user_id": message.user_id,
    }
    given = {name: value for name, value in properties.items() if value is not None}
    return message.routing_key, given, message.body


def test_worked_example_is_what_we_publish() -> None:
    client = client_word("alice", "0123456789ab")
    address = Address("jsonrpc", "calc", client, user="alice")
    body = messages.request("add", [1, 2], 7)
    call = call_message(address, body, number="7", qid=qid_of(7), deadline=5.0, now=0.0)
    assert described(call) == example(0)
    assert f"body, {len(body)} bytes" in section("A worked example")

    delivery = Delivery(1, 1, False, call.exchange, call.routing_key, body, correlation_id="7", timeout_ms=5000)
    reply = Dispatcher({"add": lambda a, b: a + b})(body) or b""
    route = reply_route(delivery, service="calc", exchange="jsonrpc")
    assert route is not None
    told = reply_message(delivery, reply, route=route, now=0.012, deadline=5.0, user="calc")
    assert described(told) == example(1)

    body = messages.notification("add", [1, 2])
    assert described(notification_message(address, body, message_id=f"{client}-8")) == example(2)


# -- a stranger's client ------------------------------------------------------------------------------------------


class Stranger:
    """A client on bare AMQP."""

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.answers: list[tuple[Any, Any, bytes]] = []
        self.returned: list[Any] = []
        self.channel.add_on_return_callback(lambda _channel, method, *_rest: self.returned.append(method))

    def consume(self, queue: str) -> None:
        """Collect answers."""
        self.channel.basic_consume(queue, lambda _channel, *message: self.answers.append(message), auto_ack=True)

    def reply_queue(self, *keys: str) -> str:
        """Make, bind and consume from a queue of its own."""
        queue = str(self.channel.queue_declare("", exclusive=True, auto_delete=True).method.queue)
        for key in keys:
            self.channel.queue_bind(queue, "jsonrpc", key)
        self.consume(queue)
        return queue

    def publish(self, key: str, body: bytes, exchange: str = "jsonrpc", **properties: Any) -> None:
        """Publish a request, mandatory."""
        properties = {"content_type": "application/json", **properties}
        self.channel.basic_publish(exchange, key, body, pika.BasicProperties(**properties), mandatory=True)

    def wait_for(self, predicate: Callable[[], object]) -> None:
        """Read until something has come."""
        deadline = time.monotonic() + PATIENCE
        while not predicate():
            assert time.monotonic() < deadline, "it did not come"
            self.connection.process_data_events(time_limit=0.05)

    def answer(self) -> tuple[Any, Any, Any]:
        """Wait for the next answer; give method, properties and response."""
        self.wait_for(lambda: self.answers)
        method, properties, body = self.answers.pop(0)
        return method, properties, json.loads(body)


@pytest.fixture
def stranger(url: str) -> Iterator[Stranger]:
    stranger = Stranger(url)
    stranger.channel.exchange_declare("jsonrpc", "topic", durable=True)
    yield stranger
    stranger.connection.close()


class Gate:
    """Methods that wait, so that answers come in the order that a test wants."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.seen: list[Any] = []

    def wait(self) -> str:
        assert self.open.wait(PATIENCE)
        return "waited"

    def write(self, line: Any) -> None:
        self.seen.append(line)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(url: str, service: str, gate: Gate) -> Iterator[Server]:
    def fail() -> None:
        raise ValueError("password")

    def remaining() -> float | None:
        return current_request().remaining

    methods: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "wait": gate.wait,
        "write": gate.write,
        "fail": fail,
        "remaining": remaining,
    }
    with Server(url, service, methods=methods) as server:
        yield server


def request(method: str, params: Any = None, **id: Any) -> bytes:
    """Write a call (``id=``), or a notification."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or [], **id}).encode()


@pytest.mark.usefixtures("server")
def test_minimal_client(stranger: Stranger, service: str) -> None:
    qid = secrets.token_hex(8)
    stranger.reply_queue(f"{service}.response.{qid}")
    stranger.publish(f"{service}.request.{qid}", request("add", [1, 2], id=qid), expiration="5000")
    method, properties, response = stranger.answer()
    assert response == {"jsonrpc": "2.0", "result": 3, "id": qid}
    assert (method.exchange, method.routing_key) == ("jsonrpc", f"{service}.response.{qid}")
    assert (properties.content_type, properties.content_encoding) == ("application/json", None)
    assert (properties.correlation_id, properties.reply_to, properties.delivery_mode) == (None, None, 1)
    # Told by timeout-ms only.
    assert properties.expiration is None


@pytest.mark.usefixtures("server")
def test_good_client_has_calls_in_flight(stranger: Stranger, service: str, gate: Gate) -> None:
    client = f"guest-{secrets.token_hex(6)}"
    stranger.reply_queue(f"{service}.response.{client}.#")
    # The same id twice: the numbers keep them apart.
    for number, method in [("1", "wait"), ("2", "remaining")]:
        stranger.publish(
            f"{service}.request.{client}.7",
            request(method, id=7),
            correlation_id=number,
            expiration="9000",
            headers={"timeout-ms": 9000},
            user_id="guest",
        )
    _, properties, response = stranger.answer()
    assert (properties.correlation_id, response["id"]) == ("2", 7)
    assert 8 < response["result"] <= 9
    assert 0 < int(properties.expiration) <= 9000
    assert not stranger.answers
    gate.open.set()
    method, properties, response = stranger.answer()
    assert (properties.correlation_id, response["result"]) == ("1", "waited")
    assert method.routing_key == f"{service}.response.{client}.7"
    assert properties.headers is None
    assert properties.user_id == "guest"


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("by_queue", [False, True])
def test_direct_reply_to(stranger: Stranger, service: str, by_queue: bool) -> None:
    stranger.consume("amq.rabbitmq.reply-to")
    exchange, key = ("", f"{service}_req") if by_queue else ("jsonrpc", f"{service}.request.guest-x.1")
    for number in ("1", "2"):
        body = request("add", [int(number), 1], id=number)
        stranger.publish(key, body, exchange, correlation_id=number, reply_to="amq.rabbitmq.reply-to")
    answers = [stranger.answer() for _ in range(2)]
    results = {properties.correlation_id: response["result"] for _, properties, response in answers}
    assert results == {"1": 2, "2": 3}
    assert {method.exchange for method, _, _ in answers} == {""}


def test_direct_reply_to_needs_its_consumer(url: str, service: str) -> None:
    key = f"{service}.request.x"
    assert refusal(url, lambda stranger: stranger.publish(key, b"{}", reply_to="amq.rabbitmq.reply-to")) == 406


def test_direct_reply_to_has_one_consumer_a_channel(url: str) -> None:
    def consume_twice(stranger: Stranger) -> None:
        stranger.consume("amq.rabbitmq.reply-to")
        stranger.consume("amq.rabbitmq.reply-to")

    assert refusal(url, consume_twice) == 406


def refusal(url: str, act: Callable[[Stranger], object]) -> int:
    """Give the code with which the broker closes the channel because of what a client does."""
    stranger = Stranger(url)
    stranger.channel.confirm_delivery()
    try:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            act(stranger)
        return int(caught.value.reply_code)
    finally:
        stranger.connection.close()


def test_notification_is_confirmed_and_not_answered(
    stranger: Stranger, service: str, server: Server, gate: Gate
) -> None:
    stranger.reply_queue(f"{service}.response.#")
    stranger.channel.confirm_delivery()
    key = f"{service}.request.guest-0123456789ab"
    for number, tail in enumerate(["", ".7", ".a.b"]):  # the body decides, not the key
        stranger.publish(key + tail, request("write", [number]), delivery_mode=2, message_id=f"m{number}")
    stranger.publish(f"{service}.request", request("write", ["bare"]), delivery_mode=2, message_id="m3")
    stranger.publish(key, request("absent"), delivery_mode=2, message_id="m4")
    stranger.publish(key, request("add", [1, 2], id="last"), correlation_id="last")
    _, properties, _ = stranger.answer()
    wait_for(lambda: server.stats()["received"] == 6 and len(gate.seen) == 4)
    assert properties.correlation_id == "last"
    assert {0, 1, 2, "bare"} == set(gate.seen)
    stranger.connection.process_data_events(time_limit=0.1)
    assert not stranger.answers
    assert not stranger.returned


def test_call_with_a_notifications_key_is_answered_at_the_mirrored_key(
    stranger: Stranger, service: str, server: Server
) -> None:
    stranger.reply_queue(f"{service}.response.#")
    stranger.publish(f"{service}.request.guest-x", request("add", [1, 2], id=1))
    method, _, response = stranger.answer()
    assert (method.routing_key, response["result"]) == (f"{service}.response.guest-x", 3)


def test_requests_without_an_address_run_all_the_same(
    stranger: Stranger, service: str, server: Server, gate: Gate
) -> None:
    stranger.reply_queue(f"{service}.response.#")
    stranger.publish(f"{service}.request", request("write", ["bare"], id=1))
    stranger.publish(f"{service}_req", request("write", ["by queue"], id=2), "")
    stranger.publish(f"{service}.request.x", request("write", ["refused"], id=3), reply_to=f"{service}_req")
    wait_for(lambda: server.stats()["dropped_replies"] == 3)
    assert sorted(gate.seen) == ["bare", "by queue", "refused"]
    stranger.connection.process_data_events(time_limit=0.1)
    assert not stranger.answers


def test_unroutable_comes_back(stranger: Stranger, service: str) -> None:
    stranger.publish(f"{service}.request.x.1", request("add", [1, 2], id=1), correlation_id="1")
    stranger.wait_for(lambda: stranger.returned)
    returned = stranger.returned[0]
    assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE")
    assert returned.routing_key == f"{service}.request.x.1"


def test_unroutable_comes_back_before_its_ack(stranger: Stranger, service: str) -> None:
    order: list[str] = []
    channel = stranger.channel._impl
    channel.confirm_delivery(lambda frame: order.append(type(frame.method).__name__))
    channel.add_on_return_callback(lambda *_: order.append("Return"))
    channel.basic_publish(
        "jsonrpc", f"{service}.request.x", b"{}", pika.BasicProperties(message_id="m"), mandatory=True
    )
    stranger.wait_for(lambda: len(order) == 2)
    assert order == ["Return", "Ack"]


def test_queue_without_servers_takes_requests(stranger: Stranger, url: str, service: str) -> None:
    with Server(url, service):
        pass
    stranger.publish(f"{service}.request.x.1", request("add", [1, 2], id=1))
    declared = stranger.channel.queue_declare(f"{service}_req", passive=True).method
    assert declared.consumer_count == 0
    assert not stranger.returned


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("body", "code", "id"), uncut("Errors")[1])
def test_errors(stranger: Stranger, service: str, body: str, code: str, id: str) -> None:
    stranger.reply_queue(f"{service}.response.q538")
    text = "".join(words(body))
    stranger.publish(f"{service}.request.q538", text.encode(), correlation_id="c")
    _, properties, response = stranger.answer()
    assert (response["error"]["code"], response["id"]) == (int(code), json.loads(id))
    assert properties.correlation_id == "c"
    assert "password" not in json.dumps(response)


@pytest.mark.usefixtures("server")
def test_batch(stranger: Stranger, service: str, gate: Gate) -> None:
    stranger.reply_queue(f"{service}.response.guest-x.#")
    members = [request("add", [1, 2], id="b"), request("write", ["noted"]), b"5", request("add", [3, 4], id=1)]
    stranger.publish(f"{service}.request.guest-x._", b"[" + b",".join(members) + b"]", correlation_id="1")
    _, _, responses = stranger.answer()
    assert [(each["id"], each.get("result")) for each in responses] == [("b", 3), (None, None), (1, 7)]
    assert responses[1]["error"]["code"] == -32600
    assert gate.seen == ["noted"]
    stranger.publish(f"{service}.request.guest-x._", b"[" + request("add", [1, 2], id=1) + b"]")
    assert isinstance(stranger.answer()[2], list)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("timeout", "bounds"),
    [(60_000, (59, 60)), (2**32 - 1, (4294966, 4294968)), ("soon", None), (0, None), (-5, None), (2**32, None)],
)
def test_timeout_ms(stranger: Stranger, service: str, timeout: Any, bounds: tuple[int, int] | None) -> None:
    stranger.reply_queue(f"{service}.response.x")
    stranger.publish(f"{service}.request.x", request("remaining", id=1), headers={"timeout-ms": timeout})
    _, properties, response = stranger.answer()
    if bounds is None:
        assert (response["result"], properties.expiration) == (None, None)
    else:
        assert bounds[0] < response["result"] <= bounds[1]
        assert bounds[0] * 1000 < int(properties.expiration) <= timeout


@pytest.mark.usefixtures("server")
def test_worked_example_works(stranger: Stranger, service: str) -> None:
    key, properties, body = example(0)
    answer_key, answer_properties, answer_body = example(1)
    mine = {"alice": "guest", "calc": service}
    stranger.reply_queue(substitute(answer_key, mine).removesuffix("7") + "#")
    stranger.publish(substitute(key, mine), body, **{**properties, "user_id": "guest"})
    stranger.wait_for(lambda: stranger.answers)
    method, sent, response = stranger.answers[0]
    assert (method.exchange, method.routing_key) == ("jsonrpc", substitute(answer_key, mine))
    assert response == answer_body
    given = {name: value for name, value in vars(sent).items() if value is not None}
    del answer_properties["expiration"]
    assert 0 < int(given.pop("expiration")) <= 5000
    assert (given.pop("user_id"), answer_properties.pop("user_id")) == ("guest", "calc")
    assert given == answer_properties


def substitute(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


@pytest.mark.usefixtures("server")
def test_topology(stranger: Stranger, service: str) -> None:
    # RabbitMQ refuses a declaration that differs from what is there.
    stranger.channel.exchange_declare("jsonrpc", "topic", durable=True, auto_delete=False, internal=False)
    stranger.channel.queue_declare(f"{service}_req", durable=True, exclusive=False, auto_delete=False)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        stranger.channel.queue_declare(f"{service}_req", durable=True, arguments={"x-max-length": 5})
    assert caught.value.reply_code == 406


@pytest.mark.usefixtures("server")
def test_topology_of_our_client(broker: Broker, service: str) -> None:
    with Client(broker.url, service) as client:
        assert client.call("add", [1, 2]) == 3
        bindings = broker.list("bindings", "source_name", "destination_name", "routing_key")
        mine = [row for row in bindings if row["routing_key"].startswith(f"{service}.")]
        assert {row["source_name"] for row in mine} == {"jsonrpc"}
        by_key = {row["routing_key"]: row["destination_name"] for row in mine}
        assert by_key.pop(f"{service}.request.#") == f"{service}_req"
        ((key, queue),) = by_key.items()
        assert re.fullmatch(rf"{service}\.response\.guest-[a-z0-9]{{12}}\.#", key)
        queues = broker.list("queues", "name", "durable", "auto_delete", "exclusive")
        facts = {row["name"]: (row["durable"], row["auto_delete"], row["exclusive"]) for row in queues}
        assert facts[queue] == (False, True, True)
        assert queue.startswith("amq.gen-")
        assert facts[f"{service}_req"] == (True, False, False)


def test_confirmed_notification_survives_a_crash(fragile: Broker, service: str) -> None:
    node, seen = fragile, threading.Event()
    with Server(node.url, service):
        pass
    node.settle()
    stranger = Stranger(node.url)
    stranger.channel.confirm_delivery()
    stranger.publish(f"{service}.request.guest-x", request("write"), delivery_mode=2, message_id="m1")
    stranger.connection.close()
    node.kill()
    node.restart()
    with Server(node.url, service, methods={"write": seen.set}):
        assert seen.wait(PATIENCE)


def test_request_of_a_server_that_dies_runs_again(stranger: Stranger, url: str, service: str) -> None:
    with Server(url, service):
        pass
    stranger.reply_queue(f"{service}.response.x")
    stranger.publish(f"{service}.request.x", request("again", id=1))
    dying = Stranger(url)
    dying.channel.basic_qos(prefetch_count=1)
    dying.channel.basic_consume(f"{service}_req", lambda *_: dying.answers.append(_[1:]))
    dying.wait_for(lambda: dying.answers)
    dying.connection.close()
    with Server(url, service, methods={"again": lambda: current_request().redelivered}):
        assert stranger.answer()[2]["result"] is True


# -- a stranger's server ------------------------------------------------------------------------------------------


class StrangersServer:
    """A server on bare AMQP, with one method: ``add``."""

    def __init__(self, url: str, service: str) -> None:
        self.service = service
        self.received: list[tuple[Any, Any]] = []
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.consumer, self.publisher = self.connection.channel(), self.connection.channel()
        self.consumer.exchange_declare("jsonrpc", "topic", durable=True)
        self.consumer.queue_declare(f"{service}_req", durable=True)
        self.consumer.queue_bind(f"{service}_req", "jsonrpc", f"{service}.request.#")
        self.consumer.basic_qos(prefetch_count=10)
        self.consumer.basic_consume(f"{service}_req", self.serve)

    def serve(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.received.append((method, properties))
        response = self.respond(body)
        if response is not None:
            exchange, key = self.address(method, properties)
            answer = pika.BasicProperties(
                content_type="application/json", delivery_mode=1, correlation_id=properties.correlation_id
            )
            mandatory = not key.startswith("amq.rabbitmq.reply-to.")
            self.publisher.basic_publish(exchange, key, json.dumps(response).encode(), answer, mandatory=mandatory)
        self.consumer.basic_ack(method.delivery_tag)

    def address(self, method: Any, properties: Any) -> tuple[str, str]:
        if properties.reply_to:
            assert properties.reply_to.startswith(("amq.gen-", "amq.rabbitmq.reply-to."))
            return "", properties.reply_to
        prefix = f"{self.service}.request."
        assert method.exchange == "jsonrpc"
        assert method.routing_key.startswith(prefix)
        return "jsonrpc", f"{self.service}.response.{method.routing_key[len(prefix) :]}"

    def respond(self, body: bytes) -> Any:
        value = json.loads(body)
        if isinstance(value, list):
            # Any order will do.
            return [each for each in map(self.run, reversed(value)) if each is not None] or None
        return self.run(value)

    @staticmethod
    def run(call: dict[str, Any]) -> Any:
        if "id" not in call:
            return None
        if call["method"] == "add":
            return {"jsonrpc": "2.0", "result": sum(call["params"]), "id": call["id"]}
        return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "no"}, "id": call["id"]}


@contextmanager
def strangers_server(url: str, service: str) -> Iterator[StrangersServer]:
    server = StrangersServer(url, service)
    thread = threading.Thread(target=server.consumer.start_consuming)
    thread.start()
    try:
        yield server
    finally:
        server.connection.add_callback_threadsafe(server.consumer.stop_consuming)
        thread.join()
        server.connection.close()


@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_strangers_server(url: str, service: str, reply: Any) -> None:
    with strangers_server(url, service) as server, Client(url, service, reply=reply, timeout=5) as client:
        assert client.call("add", [1, 2]) == 3
        with pytest.raises(MethodNotFound):
            client.call("absent")
        with client.batch() as batch:
            three, seven = batch.call("add", [1, 2]), batch.call("add", [3, 4])
        assert (three.result(), seven.result()) == (3, 7)
        client.notify("add", [1, 2])
        wait_for(lambda: len(server.received) == 4)
    check_call(*server.received[0], service, reply)
    check_notification(*server.received[3], service)


def check_call(method: Any, properties: Any, service: str, reply: str) -> None:
    assert re.fullmatch(rf"{service}\.request\.guest-[a-z0-9]{{12}}\.1", method.routing_key)
    assert (properties.content_type, properties.content_encoding) == ("application/json", None)
    assert (properties.delivery_mode, properties.user_id, properties.message_id) == (1, "guest", None)
    assert properties.correlation_id == "1"
    assert 4000 < properties.headers["timeout-ms"] <= 5000
    assert properties.expiration == str(properties.headers["timeout-ms"])
    if reply == "direct":
        assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    else:
        assert properties.reply_to is None


def check_notification(method: Any, properties: Any, service: str) -> None:
    client = method.routing_key.removeprefix(f"{service}.request.")
    assert re.fullmatch(r"guest-[a-z0-9]{12}", client)
    sent = {name: value for name, value in vars(properties).items() if value is not None}
    assert re.fullmatch(rf"{client}-\d+", sent.pop("message_id"))
    assert sent == {"content_type": "application/json", "delivery_mode": 2, "user_id": "guest"}


# -- permissions --------------------------------------------------------------------------------------------------


class Permissions:
    """Users with the patterns of the document, on names of this test."""

    def __init__(self, broker: Broker, service: str) -> None:
        self.broker = broker
        self.names = {"alice": f"a{secrets.token_hex(4)}", "dana": f"d{secrets.token_hex(4)}", "calc": service}
        # The server's user is not named there; any name does.
        self.users = {"server": f"s{secrets.token_hex(4)}", "alice": self.names["alice"], "dana": self.names["dana"]}
        for row, user in zip(uncut("Security")[0], self.users.values(), strict=True):
            resources, topics = (map(self.named, words(cell)) for cell in row[1:])
            broker.ctl("add_user", user, "secret")
            broker.ctl("set_permissions", user, *resources)
            broker.restrict_topics(user, *topics)

    def named(self, pattern: str) -> str:
        return substitute(pattern, self.names)

    def url(self, who: str) -> str:
        return self.broker.url.replace("guest:guest", f"{self.users[who]}:secret")

    def remove(self) -> None:
        for user in self.users.values():
            self.broker.ctl("delete_user", user)


@pytest.fixture
def permissions(broker: Broker, service: str) -> Iterator[Permissions]:
    with Server(broker.url, service):
        pass  # an administrator makes exchange, queue and binding
    permissions = Permissions(broker, service)
    yield permissions
    permissions.remove()


def test_permissions(permissions: Permissions, url: str, service: str) -> None:
    """The patterns are enough for a server and two clients, and keep clients from what the document says."""
    private = f"{service}-private"
    server = Server(permissions.url("server"), service, declare=False, methods={"add": lambda a, b: a + b})
    with server, Server(url, private, methods={"add": lambda a, b: a + b}) as other:
        for who, reply in (("alice", "topic"), ("dana", "direct")):
            refuses_other_services(permissions.url(who), service, private, reply)
        token = "0123456789ab"
        alice = permissions.users["alice"]
        for key in (f"{service}.request.dana-{token}.1", f"{service}.request.q538", f"{service}.request"):
            assert refusal(permissions.url("alice"), methodcaller("publish", key, b"{}")) == 403
        mine = f"{service}.request.{alice}-{token}.1"
        assert refusal(permissions.url("alice"), lambda stranger: stranger.publish(mine, b"{}", user_id="guest")) == 406
        for key in (f"{service}.response.dana-{token}.#", f"{service}.response.#", f"{service}.request.#", "#"):
            assert refusal(permissions.url("alice"), methodcaller("reply_queue", key)) == 403
        assert refusal(permissions.url("alice"), lambda stranger: stranger.consume(f"{service}_req")) == 403
        assert other.stats()["received"] == 0

        stranger = Stranger(permissions.url("alice"))
        with stranger.connection:
            stranger.publish(mine, b"{}", headers={"CC": [f"{private}.request.{alice}-{token}.1"]})
            # RabbitMQ 3.10 delivers it, 4.0 closes the channel.
            stranger.wait_for(lambda: other.stats()["received"] == 1 or stranger.channel.is_closed)
            assert (other.stats()["received"] == 0) == stranger.channel.is_closed


def refuses_other_services(url: str, service: str, private: str, reply: Any) -> None:
    with Client(url, service, reply=reply, declare=False, timeout=10) as client:
        assert client.call("add", [1, 2]) == 3
        client.notify("add", [1, 2])
        for form in (client.call, client.notify):
            with pytest.raises(AccessRefused):
                form("add", [1, 2], service=private)
