"""
What Eve does so that calls of others fail, over each way that requests and replies take.

With ``--reply topic`` and ``--reply direct`` she has the permissions that are printed for a client, and both sides
check who sends what. By queue there is neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import pika

from jsonrpc_amqp import Client, JsonRpcAmqpError, Server
from jsonrpc_amqp.amqp.decoder import Decoder
from jsonrpc_amqp.amqp.frames import FrameError

from ..grown import grow
from ..tools import wait_for
from .attacks import BROKER, SUCCEEDS, TOKEN, Eve, Gate, Scene, _is_refused, name_of_direct
from .node import ALICE, DIRECT, EVE, EXCHANGE, OPEN, SERVER, SERVICE, TOPIC, Node

HARMLESS = "no other call fails"
NOT_POSSIBLE = "not possible"
VAULT = "vault"
QUEUE = "queue"
WAYS = (TOPIC, DIRECT, QUEUE)
CALLS = 8
PATIENCE = 10.0
# Seconds. More than a call takes that has to wait for another connection.
TIMEOUT = 4.0
# Bytes of the largest header that RabbitMQ takes: 8 more than it announces.
LARGEST = 131_072
GROWN = 1_200_000
# Queues that each of her replies is copied to, and requests that she sends; the page has the figures of 1,000.
COPIES, COPIED = 20, 5
NOTIFICATION = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": ["x"]}).encode()
_OWN, _OWN_REPLY = f"{SERVICE}.request.eve-{TOKEN}.1", f"{SERVICE}.response.eve-{TOKEN}"


@dataclass
class Stage(Scene):
    """
    The scene of a disruption: its victim's requests and replies go by one of the ways.

    Attributes:
        vault: The server of a service that Eve may not call.
        neighbour: Calls that service.
    """

    vault: Server
    neighbour: Client

    def connections(self) -> list[int]:
        """How many connections each of the four has had."""
        return [each.stats()["connections"] for each in (self.server, self.victim, self.vault, self.neighbour)]

    def has_lost_a_connection(self) -> bool:
        return self.connections() != [1, 1, 1, 1]


@contextmanager
def stage(node: Node, way: str) -> Iterator[Stage]:
    """Run two servers, and a client of each."""
    vhost = OPEN if way == QUEUE else way
    is_open = way == QUEUE
    methods: dict[str, Callable[..., Any]] = {"echo": lambda text: text}
    options: dict[str, Any] = {"route": "queue"} if is_open else {"reply": way, "server_user": SERVER}
    guest = node.broker.url + ("" if is_open else vhost)
    with (
        _emptied(node, vhost),
        Server(
            node.url(SERVER, vhost),
            SERVICE,
            methods=methods,
            declare=is_open,
            verify_user=not is_open,
            dead_letters=True,
        ) as server,
        Client(node.url(ALICE, vhost), SERVICE, timeout=TIMEOUT, declare=is_open, **options) as victim,
        Server(guest, VAULT, methods=methods) as vault,
        Client(guest, VAULT, timeout=TIMEOUT) as neighbour,
    ):
        yield Stage(node, vhost, not is_open, server, victim, Gate(), [], methods, vault, neighbour)


@contextmanager
def _emptied(node: Node, vhost: str) -> Iterator[None]:
    """Leave no message in the queues for the next test."""
    try:
        yield
    finally:
        url = node.broker.url + ("%2F" if vhost == OPEN else vhost)
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel: Any = connection.channel()
        for service in (SERVICE, VAULT):
            channel.queue_purge(f"{service}_req")
        connection.close()


@contextmanager
def unprotected() -> Iterator[None]:
    """Have connections end at a header over the size of frames that was agreed on, as most AMQP libraries do."""

    def refuse(*_args: object) -> NoReturn:
        raise FrameError("a header over the size that was agreed on")

    defaults: Any = Decoder.__init__.__kwdefaults__
    with mock.patch.dict(defaults, max_header=0), mock.patch.object(Decoder, "_begin_to_skip", refuse):
        yield


def disrupt(here: Stage, attack: Callable[[Eve, Stage], str | None]) -> str:
    """Let Eve attack, and call for others meanwhile. Return how it ends."""
    for client in (here.victim, here.neighbour):
        assert client.call("echo", ["before"]) == "before"
    with here.eve() as eve:
        ended: list[str | None] = []
        if _is_refused(lambda: ended.append(attack(eve, here))):
            return BROKER
        if ended[0]:
            return ended[0]
        try:
            for number in range(CALLS):
                assert here.victim.call("echo", [number]) == here.neighbour.call("echo", [number]) == number
        except JsonRpcAmqpError:
            return SUCCEEDS
    return SUCCEEDS if here.has_lost_a_connection() else HARMLESS


# -- what Eve does ----------------------------------------------------------------------------------------------


def _publish_large(eve: Eve, exchange: str, key: str, **headers: Any) -> None:
    """Publish a request with a header that is as large as RabbitMQ takes."""

    def properties(filler: int) -> pika.BasicProperties:
        return pika.BasicProperties(user_id=EVE, headers={**headers, "x": "A" * filler})

    size = 12 + sum(map(len, properties(0).encode()))  # class, weight, and the size of the body are before them
    eve.channel.basic_publish(exchange, key, NOTIFICATION, properties(LARGEST - size))


def _grow(eve: Eve, *also: str) -> int:
    return grow(eve.channel, NOTIFICATION, _OWN, _OWN_REPLY, GROWN, also=also, user_id=EVE)


def _until_received(here: Stage, server: Server, count: int) -> None:
    wait_for(lambda: server.stats()["received"] >= count or here.has_lost_a_connection(), PATIENCE)


def _until_rejected(here: Stage) -> None:
    names = ("rejected_replies", "dropped_replies", "connections_lost")
    wait_for(lambda: sum(here.victim.stats()[name] for name in names), PATIENCE)


def _key_of_victim(here: Stage) -> str:
    return f"{SERVICE}.response.{here.client_word}.1"


def large_to_server(eve: Eve, here: Stage) -> None:
    exchange, key = ("", f"{SERVICE}_req") if here.vhost == OPEN else (EXCHANGE, _OWN)
    _publish_large(eve, exchange, key)
    _until_received(here, here.server, 2)


def large_to_client(eve: Eve, here: Stage) -> None:
    if here.vhost == TOPIC:
        _publish_large(eve, EXCHANGE, _OWN, CC=[_key_of_victim(here)])
    else:
        _publish_large(eve, "", name_of_direct(here))
    _until_rejected(here)


def large_to_another_service(eve: Eve, here: Stage) -> None:
    _publish_large(eve, EXCHANGE, _OWN, CC=[f"{VAULT}.request"])
    _until_received(here, here.vault, 2)


def grown_to_server(eve: Eve, here: Stage) -> None:
    sent = _grow(eve)
    _until_received(here, here.server, sent + 1)


def grown_to_client(eve: Eve, here: Stage) -> None:
    _grow(eve, _key_of_victim(here))
    _until_rejected(here)


def grown_to_another_service(eve: Eve, here: Stage) -> None:
    sent = _grow(eve, f"{VAULT}.request")
    _until_received(here, here.vault, sent + 1)


def copies_of_replies(eve: Eve, _here: Stage) -> str:
    """Bind queues to her own replies. It succeeds if the broker makes a copy for each of them."""
    queues = [eve.queue() for _ in range(COPIES)]
    for queue in queues:
        eve.channel.queue_bind(queue, EXCHANGE, f"{_OWN_REPLY}.#")
    for number in range(COPIED):
        body = {"jsonrpc": "2.0", "method": "echo", "params": ["x"], "id": number}
        eve.channel.basic_publish(EXCHANGE, _OWN, json.dumps(body).encode(), pika.BasicProperties(user_id=EVE))

    def counts() -> list[int]:
        return [eve.channel.queue_declare(each, passive=True).method.message_count for each in queues]

    wait_for(lambda: counts() == [COPIED] * COPIES, PATIENCE)
    return SUCCEEDS


class Disruption(NamedTuple):
    """
    One row of the table in docs/security.md.

    Attributes:
        what: The description.
        run: Runs it, and may return how it ends; raises what the broker refuses.
        ends: How it ends by each of ``WAYS``.
    """

    what: str
    run: Callable[[Eve, Stage], str | None]
    ends: tuple[str, str, str]


DISRUPTIONS: dict[str, Disruption] = {
    "large-request": Disruption(
        "send a request with the largest header that RabbitMQ takes", large_to_server, (HARMLESS, HARMLESS, HARMLESS)
    ),
    "large-reply": Disruption(
        "send that to the victim, with its routing key in the header `CC`, or by its direct reply-to",
        large_to_client,
        (HARMLESS, BROKER, HARMLESS),
    ),
    "large-elsewhere": Disruption(
        "send that to a service that she may not call, with its routing key in `CC`",
        large_to_another_service,
        (HARMLESS, HARMLESS, HARMLESS),
    ),
    "grown-request": Disruption(
        "have the header of a request grow to over 1 MiB, by dead letters from one queue of her own to the next",
        grown_to_server,
        (HARMLESS, BROKER, HARMLESS),
    ),
    "grown-reply": Disruption(
        "the same, with the victim's routing key in `CC`", grown_to_client, (HARMLESS, NOT_POSSIBLE, NOT_POSSIBLE)
    ),
    "grown-elsewhere": Disruption(
        "the same, with the routing key of a service that she may not call",
        grown_to_another_service,
        (HARMLESS, BROKER, HARMLESS),
    ),
    "copies": Disruption(
        "bind many queues to her own replies, so that the broker copies each of them as often (see below)",
        copies_of_replies,
        (SUCCEEDS, BROKER, SUCCEEDS),
    ),
}
