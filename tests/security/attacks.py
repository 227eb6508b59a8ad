"""
The attacks: what Eve does, what she tries to achieve, and how it ends.

Eve knows more than she should: the victim's routing keys with the token, the name of its reply queue, and the number
of its call, except in attacks that need none of these.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from unittest import mock

import pika
from click.testing import CliRunner
from pika.exceptions import ChannelClosedByBroker

from jsonrpc_amqp import Client, DeadLetters, Server
from jsonrpc_amqp.cli import dead as dead_commands
from jsonrpc_amqp.cli import main
from jsonrpc_amqp.cli.common import one_line
from jsonrpc_amqp.options import PREFETCH
from jsonrpc_amqp.wire.names import client_word

from ..abuse.neighbour import Visits
from ..tools import wait_for
from .disturbances import UNHARMED, disturb, made_up_names, many_refused, refused_and_large
from .node import ALICE, EVE, EXCHANGE, MAX_LENGTH, OPEN, SERVER, SERVICE, Node

FORGED, TRUE = "forged", "true"
SECRET = "not for others"
TOKEN = "eve000000000"

SUCCEEDS = "**succeeds**"
BROKER = "refused by the broker"
CLIENT_REJECTS = "rejected by the client"
SERVER_REFUSES = "refused by the server"
REPLY_REFUSED = "the reply is refused by the broker"
NOT_SENT_AGAIN = "not sent again"
LISTED_AS_HERS = "listed as hers"
OPERATOR = "guest"

PATIENCE = 5.0


# -- the scene ------------------------------------------------------------------------------------------------


class Gate:
    """A method that returns when ``go`` is set."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> str:
        self.entered.release()
        assert self.go.wait(PATIENCE)
        return TRUE


@contextmanager
def scene(node: Node, vhost: str, *, checked: bool, user: str, reply: Any = "topic") -> Iterator[Scene]:
    """Run a server and a victim for a ``with`` block."""
    gate = Gate()
    notes: list[str] = []
    methods: dict[str, Callable[..., Any]] = {"slow": gate, "echo": lambda text: text, "note": notes.append}
    methods |= {"visit": Visits(), "end": notes.append}
    # The victim may call "note", and so may an operator, but not Eve.
    authorize = {"note": [user, OPERATOR], "*": "*"} if checked else None
    server = Server(
        node.url(SERVER, vhost),
        SERVICE,
        methods=methods,
        declare=vhost == OPEN,
        verify_user=checked,
        authorize=authorize,
        dead_letters=True,
    )
    victim = node.client(user, vhost, reply=reply, server_user=SERVER if checked else None)
    if not checked:
        victim._requests._replies._checks = cast(Any, Trusting())
    with server, victim:
        yield Scene(node, vhost, checked, server, victim, gate, notes, methods)


class Trusting:
    """The checks of a client that pairs replies by ``correlation_id`` and checks nothing else."""

    def mismatch(self, _delivery: object, _key: str) -> None:
        return None


@dataclass
class Scene:
    """
    A server and a victim, and Eve on the same virtual host.

    Attributes:
        vhost: The virtual host.
        checked: The server has ``verify_user`` and ``authorize``, the victim ``server_user``. False: both accept all
            messages, and an operator sends again what no server has checked.
        notes: The arguments that ``note`` and ``end`` were called with.
        methods: Those of the server.
    """

    node: Node
    vhost: str
    checked: bool
    server: Server
    victim: Client
    gate: Gate
    notes: list[str]
    methods: dict[str, Callable[..., Any]]

    @property
    def client_word(self) -> str:
        """The victim's word in routing keys."""
        addresses = self.victim._requests._addresses
        return client_word(addresses._user, addresses._token)

    @property
    def reply_queue(self) -> str:
        """The name of the victim's reply queue."""
        session: Any = self.victim._requests.life.session
        return str(session.reply_queue)

    @property
    def number(self) -> str:
        """The number of the victim's pending call, which is its id as well."""
        [number] = self.victim._requests._pending._calls
        return number

    @property
    def reply_key(self) -> str:
        """The routing key of the reply to that call."""
        [call] = self.victim._requests._pending._calls.values()
        return f"{SERVICE}.response.{self.client_word}.{call.qid}"

    def reply(self, result: str = FORGED) -> bytes:
        """Return a reply to that call."""
        [call] = self.victim._requests._pending._calls.values()
        return json.dumps({"jsonrpc": "2.0", "result": result, "id": int(call.qid)}).encode()

    def request(self, method: str, *params: str) -> bytes:
        """Return a request with the id of that call."""
        [call] = self.victim._requests._pending._calls.values()
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": int(call.qid)}).encode()

    @contextmanager
    def eve(self) -> Iterator[Eve]:
        """Connect Eve for a ``with`` block."""
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url(EVE, self.vhost).replace("/?", "/%2F?")))
        eve = Eve(self, connection)
        try:
            yield eve
        finally:
            eve.leave()


class Eve:
    """Publishes, declares and binds what she is permitted to; each method returns when the broker has done it."""

    def __init__(self, scene: Scene, connection: Any) -> None:
        self.scene = scene
        self.connection = connection
        self.exchanges: list[str] = []
        self.channel = connection.channel()
        self.channel.confirm_delivery()
        self.plain = connection.channel()
        self.sent = 0
        self.own_key = f"{SERVICE}.request.eve-{TOKEN}.1"

    def publish(self, exchange: str, key: str, body: bytes, **properties: Any) -> None:
        properties = {"correlation_id": self.scene.number, **properties}
        self.channel.basic_publish(exchange, key, body, pika.BasicProperties(**properties))

    def queue(self, **arguments: Any) -> str:
        """Declare a queue that RabbitMQ names, as clients are permitted to."""
        declared = self.channel.queue_declare("", exclusive=True, arguments=arguments or None)
        return str(declared.method.queue)

    def exchange(self, **arguments: Any) -> str:
        """Declare an exchange of her own."""
        name = f"eves-{secrets.token_hex(4)}"
        self.channel.exchange_declare(name, "topic", arguments=arguments or None)
        self.exchanges.append(name)
        return name

    def leave(self) -> None:
        """Delete what does not disappear with the connection, and close it."""
        if self.connection.is_open:
            channel = self.connection.channel()
            for name in self.exchanges:
                channel.exchange_delete(name)
            self.connection.close()

    def reads(self, queue: str) -> bool:
        """Return whether the secret arrives in one of her queues."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            _method, _properties, body = self.channel.basic_get(queue, auto_ack=True)
            if body is not None and SECRET.encode() in body:
                return True
            time.sleep(0.01)
        return False


# -- forging ----------------------------------------------------------------------------------------------------


def plain(eve: Eve) -> None:
    eve.publish(EXCHANGE, eve.scene.reply_key, eve.scene.reply())


def copied(header: str) -> Callable[[Eve], None]:
    def attack(eve: Eve) -> None:
        eve.publish(EXCHANGE, eve.own_key, eve.scene.reply(), headers={header: [eve.scene.reply_key]})

    return attack


def dead_letter(eve: Eve) -> None:
    """Have a forged reply expire at once in her queue, and be dead-lettered to the victim. Under permissions, by CC."""
    arguments = {"x-dead-letter-exchange": EXCHANGE, "x-dead-letter-routing-key": eve.scene.reply_key}
    queue = eve.queue(**arguments, **{"x-message-ttl": 0})
    if eve.scene.vhost == OPEN:
        eve.publish("", queue, eve.scene.reply())
    else:
        own = f"{SERVICE}.response.eve-{TOKEN}"
        eve.channel.queue_bind(queue, EXCHANGE, f"{own}.#")
        eve.publish(EXCHANGE, eve.own_key, eve.scene.reply(), headers={"CC": [f"{own}.1"]})


def true_dead_letter(eve: Eve) -> None:
    """Have a genuine reply to her, with the content she wants, dead-lettered from her queue to the victim's."""
    arguments = {"x-dead-letter-exchange": EXCHANGE, "x-dead-letter-routing-key": eve.scene.reply_key}
    queue = eve.queue(**arguments, **{"x-message-ttl": 0})
    eve.channel.queue_bind(queue, EXCHANGE, f"{SERVICE}.response.eve-{TOKEN}.#")
    eve.publish(EXCHANGE, eve.own_key, eve.scene.request("echo", FORGED), user_id=EVE)


def alternate_exchange(eve: Eve) -> None:
    eve.publish(eve.exchange(**{"alternate-exchange": EXCHANGE}), eve.scene.reply_key, eve.scene.reply())


def bound_exchange(eve: Eve) -> None:
    exchange = eve.exchange()
    eve.channel.exchange_bind(EXCHANGE, exchange, "#")
    eve.publish(exchange, eve.scene.reply_key, eve.scene.reply())


def to_reply_queue(eve: Eve) -> None:
    eve.publish("", eve.scene.reply_queue, eve.scene.reply())


def by_reply_to(eve: Eve) -> None:
    eve.publish(EXCHANGE, eve.own_key, eve.scene.request("echo", FORGED), user_id=EVE, reply_to=eve.scene.reply_queue)


def with_the_name_of_another(eve: Eve) -> None:
    key = eve.scene.reply_key.replace(".response.", ".request.")
    eve.publish(EXCHANGE, key, eve.scene.request("echo", FORGED), user_id=EVE)


def forge(scene: Scene, attack: Callable[[Eve], None]) -> str:
    """Let Eve attack while the victim waits for a reply. Return how it ends."""
    before = _rejected(scene)
    scene.gate.go.clear()
    future = scene.victim.submit("slow")
    assert scene.gate.entered.acquire(timeout=PATIENCE)
    try:
        with scene.eve() as eve:
            if _is_refused(lambda: attack(eve)):
                return BROKER
            wait_for(lambda: future.done() or _rejected(scene) != before, PATIENCE, told=lambda: str(_rejected(scene)))
    finally:
        scene.gate.go.set()
        result = future.result(PATIENCE)
    if result == FORGED:
        return SUCCEEDS
    assert result == TRUE
    return _difference(before, _rejected(scene))


def _is_refused(step: Callable[[], object]) -> bool:
    """Run a step and return whether the broker refused it (403)."""
    try:
        step()
    except ChannelClosedByBroker as refusal:
        if refusal.reply_code != 403:
            raise
        return True
    return False


def _rejected(scene: Scene) -> tuple[int, int, int]:
    server = scene.server.stats()
    refused = server["refused"] + server["malformed"]
    return scene.victim.stats()["rejected_replies"], refused, server["dropped_replies"]


def _difference(before: tuple[int, int, int], after: tuple[int, int, int]) -> str:
    names = (CLIENT_REJECTS, SERVER_REFUSES, REPLY_REFUSED)
    return next(name for name, was, now in zip(names, before, after, strict=True) if now > was)


# -- reading ----------------------------------------------------------------------------------------------------


def all_replies(eve: Eve) -> str:
    queue = eve.queue()
    eve.channel.queue_bind(queue, EXCHANGE, f"{SERVICE}.response.#")
    return queue


def replies_to_victim(eve: Eve) -> str:
    queue = eve.queue()
    eve.channel.queue_bind(queue, EXCHANGE, f"{SERVICE}.response.{eve.scene.client_word}.#")
    return queue


def by_an_exchange(eve: Eve) -> str:
    exchange, queue = eve.exchange(), eve.queue()
    eve.channel.exchange_bind(exchange, EXCHANGE, "#")
    eve.channel.queue_bind(queue, exchange, "#")
    return queue


def copies_of_requests(eve: Eve) -> str:
    queue = eve.queue()
    eve.channel.queue_bind(queue, EXCHANGE, f"{SERVICE}.request.#")
    return queue


def read(scene: Scene, attack: Callable[[Eve], str]) -> str:
    """Let Eve listen while the victim calls. Return how it ends."""
    queues: list[str] = []
    with scene.eve() as eve:
        if _is_refused(lambda: queues.append(attack(eve))):
            return BROKER
        assert scene.victim.call("echo", [SECRET]) == SECRET
        assert eve.reads(queues[0]), "she was permitted to bind, and reads nothing"
        return SUCCEEDS


def take_requests(eve: Eve) -> str:
    """Consume the request queue. What she has taken is redelivered when she disconnects."""
    taken: list[bytes] = []
    eve.channel.basic_qos(prefetch_count=1)
    eve.channel.basic_consume(f"{SERVICE}_req", lambda _channel, _method, _properties, body: taken.append(body))
    futures = [eve.scene.victim.submit("echo", [SECRET]) for _ in range(4)]
    wait_for(lambda: eve.connection.process_data_events(0.01) or taken, PATIENCE)
    eve.connection.close()
    assert [future.result(PATIENCE) for future in futures] == [SECRET] * 4
    assert SECRET.encode() in taken[0]
    return SUCCEEDS


def reply_in_its_place(eve: Eve) -> str:
    """Take a request, and reply to it."""
    scene, taken = eve.scene, []
    before = _rejected(scene)
    eve.channel.basic_consume(f"{SERVICE}_req", lambda *args: taken.append(args))
    futures = []
    while not taken:
        futures.append(scene.victim.submit("echo", [TRUE]))
        eve.connection.process_data_events(0.1)
    _channel, method, properties, body = taken[0]
    reply = json.dumps({"jsonrpc": "2.0", "result": FORGED, "id": json.loads(body)["id"]}).encode()
    key = method.routing_key.replace(".request.", ".response.")
    eve.publish(EXCHANGE, key, reply, correlation_id=properties.correlation_id)
    wait_for(lambda: any(_is(each, FORGED) for each in futures) or _rejected(scene) != before, PATIENCE)
    eve.connection.close()
    results = {future.result(PATIENCE) for future in futures}
    return SUCCEEDS if FORGED in results else _difference(before, _rejected(scene))


def _is(future: Any, result: str) -> bool:
    return bool(future.done() and future.result() == result)


def take(scene: Scene, attack: Callable[[Eve], str]) -> str:
    """Let Eve consume the service's own queue. Return how it ends."""
    ends: list[str] = []
    # The victim has several pending calls.
    with mock.patch.object(Scene, "number", "0"), scene.eve() as eve:
        return BROKER if _is_refused(lambda: ends.append(attack(eve))) else ends[0]


# -- dead-lettering ---------------------------------------------------------------------------------------------------


def replay(scene: Scene) -> str:
    """Have a request of the victim dead-lettered from Eve's queue to the service, with the victim's ``user_id``."""
    with mock.patch.object(Scene, "number", "0"), scene.eve() as eve:
        arguments = {"x-dead-letter-exchange": EXCHANGE, "x-dead-letter-routing-key": f"{SERVICE}.request"}
        queue = eve.queue(**arguments, **{"x-message-ttl": 0})
        if _is_refused(lambda: eve.channel.queue_bind(queue, EXCHANGE, f"{SERVICE}.request.*.*")):
            return BROKER
        scene.victim.call("note", ["once"])
        wait_for(lambda: len(scene.notes) > 1 or scene.server.stats()["refused"], PATIENCE)
    return SUCCEEDS if scene.notes == ["once", "once"] else SERVER_REFUSES


def call_another_service(scene: Scene) -> str:
    """Eve is permitted to call one service, and has a request dead-lettered from her queue to another service."""
    notes: list[str] = []
    path = "" if scene.vhost == OPEN else scene.vhost
    other = Server(f"{scene.node.broker.url}{path}", "vault", methods={"take": notes.append}, verify_user=scene.checked)
    with mock.patch.object(Scene, "number", "0"), other, scene.eve() as eve:
        arguments = {"x-dead-letter-exchange": EXCHANGE, "x-dead-letter-routing-key": "vault.request"}
        queue, own = eve.queue(**arguments, **{"x-message-ttl": 0}), f"{SERVICE}.response.eve-{TOKEN}"
        eve.channel.queue_bind(queue, EXCHANGE, f"{own}.#")
        body = json.dumps({"jsonrpc": "2.0", "method": "take", "params": [SECRET]}).encode()
        if _is_refused(lambda: eve.publish(EXCHANGE, eve.own_key, body, user_id=EVE, headers={"CC": [f"{own}.1"]})):
            return BROKER
        wait_for(lambda: notes or other.stats()["refused"], PATIENCE)
    return SUCCEEDS if notes else SERVER_REFUSES


# -- dead letters -------------------------------------------------------------------------------------------------


class Pairs(dict[str, Any]):
    """A table for pika, with several entries of one name."""

    def __init__(self, *pairs: tuple[str, Any]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def items(self) -> Any:
        return self._pairs


UNCHECKED_BODY = json.dumps({"jsonrpc": "2.0", "method": "note", "params": [FORGED]}).encode()
HARMLESS_BODY = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": [TRUE]}).encode()
# What RabbitMQ writes when a server rejects a request.
REJECTED = {"queue": f"{SERVICE}_req", "reason": "rejected", "count": 1, "exchange": EXCHANGE, "routing-keys": ["k"]}


def expiring(
    headers: dict[str, Any], exchange: str = EXCHANGE, key: str = "", body: bytes = UNCHECKED_BODY
) -> Callable[[Eve], None]:
    def attack(eve: Eve) -> None:
        eve.publish(exchange, key or eve.own_key, body, user_id=EVE, expiration="1", headers=headers)

    return attack


def overflowing(eve: Eve) -> None:
    eve.publish(EXCHANGE, eve.own_key, UNCHECKED_BODY, user_id=EVE)
    for _ in range(MAX_LENGTH):
        eve.plain.basic_publish(EXCHANGE, eve.own_key, HARMLESS_BODY, pika.BasicProperties(user_id=EVE))


def put_there(exchange: str, key: str) -> Callable[[Eve], None]:
    return lambda eve: eve.publish(exchange, key, UNCHECKED_BODY, user_id=EVE, headers={"x-death": [REJECTED]})


EXPIRED_AND_REJECTED = Pairs(("queue", f"{SERVICE}_req"), ("reason", "expired"), ("reason", "rejected"), ("count", 1))


def _operators_url(scene: Scene) -> str:
    return f"{scene.node.broker.url}{'' if scene.vhost == OPEN else scene.vhost}"


def _is_kept(scene: Scene, dead: DeadLetters, attack: Callable[[Eve], None]) -> bool:
    """While the server is busy, Eve makes a dead letter of a request that she may not make; return whether she can."""
    with scene.eve() as eve:
        dead.purge(all=True)
        scene.gate.go.clear()
        busy = [scene.victim.submit("slow") for _ in range(PREFETCH)]
        try:
            wait_for(lambda: scene.server.stats()["received"] == PREFETCH)
            with mock.patch.object(Scene, "number", "0"):
                if _is_refused(lambda: attack(eve)):
                    return False
            # RabbitMQ 4 does not take the header for its own.
            return _happens(lambda: any((letter.method or "").startswith("note") for letter in dead.list()))
        finally:
            with closing(pika.BlockingConnection(pika.URLParameters(_operators_url(scene)))) as connection:
                connection.channel().queue_purge(f"{SERVICE}_req")  # what overflows it is not for the next attack
            scene.gate.go.set()
            for future in busy:
                future.exception(2 * PATIENCE)


def list_as_anothers(scene: Scene) -> str:
    """Eve has a name of a method listed that continues in the column of users."""
    body = json.dumps({"jsonrpc": "2.0", "method": f"note{' ' * 18}{ALICE}{' ' * 9}60 bytes"}).encode()
    url = _operators_url(scene)
    with DeadLetters(url, SERVICE) as dead:
        if not _is_kept(scene, dead, expiring({"x-death": "junk"}, body=body)):
            return BROKER
    with nullcontext() if scene.checked else mock.patch.object(dead_commands, "_word", one_line):
        listed = CliRunner().invoke(main, ["dead", "list", "--service", SERVICE, "--url", url])
    [row] = listed.stdout.splitlines()
    return LISTED_AS_HERS if row.split()[5] == EVE else SUCCEEDS


def send_again(scene: Scene, attack: Callable[[Eve], None]) -> str:
    """Eve makes a dead letter of a request that she may not make, and an operator sends all."""
    with DeadLetters(_operators_url(scene), SERVICE) as dead:
        if not _is_kept(scene, dead, attack):
            return BROKER
        keys = () if scene.checked else {letter.key for letter in dead.list()}
        if not dead.requeue(*keys, all=scene.checked, unchecked=not scene.checked).sent:
            return NOT_SENT_AGAIN
    wait_for(lambda: scene.notes or scene.server.stats()["refused"], PATIENCE)
    return SUCCEEDS if scene.notes else SERVER_REFUSES


def _happens(condition: Callable[[], object]) -> bool:
    give_up = time.monotonic() + PATIENCE
    while not (happened := condition()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return bool(happened)


# -- the dialect of 2011 ---------------------------------------------------------------------------------------------


def by_the_dialect(scene: Scene) -> str:
    """The service serves the dialect recipe2011 as well: a request of it names the victim's key as its ``qid``."""
    scene.server.stop()
    with Server(
        scene.node.url(SERVER, scene.vhost),
        SERVICE,
        methods=scene.methods,
        declare=scene.vhost == OPEN,
        dead_letters=True,
        dialect="recipe2011",
        recipe_method="echo",
    ) as server:
        scene.server = server
        return forge(scene, qid_of_the_victim)


def qid_of_the_victim(eve: Eve) -> None:
    scene = eve.scene
    qid = scene.reply_key.removeprefix(f"{SERVICE}.response.")
    eve.publish(EXCHANGE, eve.own_key, json.dumps({"q": json.loads(scene.reply()), "qid": qid}).encode(), user_id=EVE)


# -- direct reply-to ----------------------------------------------------------------------------------------------


def name_of_direct(scene: Scene) -> str:
    """Return the name that RabbitMQ gives the victim's direct reply-to, as the server receives it."""
    names: list[str] = []
    pipeline = scene.server._pipeline
    route = pipeline._reply_route

    def look(delivery: Any) -> Any:
        # By the name of the queue only the victim calls.
        if scene.client_word in delivery.routing_key or delivery.routing_key == f"{SERVICE}_req":
            names.append(delivery.reply_to)
        return route(delivery)

    with mock.patch.object(pipeline, "_reply_route", look):
        scene.victim.call("echo", [TRUE])
    return names[0]


def to_direct(eve: Eve, name: str) -> None:
    eve.publish("", name, eve.scene.reply())


def by_direct_reply_to(eve: Eve, name: str) -> None:
    eve.publish(EXCHANGE, eve.own_key, eve.scene.request("echo", FORGED), user_id=EVE, reply_to=name)


def forge_direct(scene: Scene, attack: Callable[[Eve, str], None]) -> str:
    name = name_of_direct(scene)
    return forge(scene, lambda eve: attack(eve, name))


# -- all of them ------------------------------------------------------------------------------------------------


class Attack(NamedTuple):
    """
    One row of the table in docs/security.md.

    Attributes:
        what: The description.
        knows: What Eve needs to know.
        run: Runs it and returns how it ended.
        by_permissions: How it ends if users have only the printed permissions, and both sides accept all messages.
        by_checks: How it ends with ``verify_user`` and ``server_user``, if every user may do everything.
        by_both: How it ends with both.
        direct: The victim receives its replies by direct reply-to.
        before_4: RabbitMQ 4 refuses it.
        by_nothing: How it ends without permissions and checks.
        alone: There is no neighbour beside it, since the server is kept busy, or another one started.
    """

    what: str
    knows: str
    run: Callable[[Scene], str]
    by_permissions: str
    by_checks: str
    by_both: str
    direct: bool = False
    before_4: bool = False
    by_nothing: str = SUCCEEDS
    alone: bool = False


def _disturbing(attack: Callable[[Eve], None]) -> Callable[[Scene], str]:
    return lambda scene: disturb(scene, attack, succeeds=SUCCEEDS, refused=BROKER)


def _forging(attack: Callable[[Eve], None]) -> Callable[[Scene], str]:
    return lambda scene: forge(scene, attack)


def _reading(attack: Callable[[Eve], str]) -> Callable[[Scene], str]:
    return lambda scene: read(scene, attack)


def _sent_again(
    how: str,
    attack: Callable[[Eve], None],
    by_permissions: str,
    by_checks: str,
    by_both: str,
    *,
    before_4: bool = False,
) -> Attack:
    what = f"have an operator make a request that she may not make (`dead requeue`): {how}"
    ends = (by_permissions, by_checks, by_both)
    return Attack(what, "nothing", lambda scene: send_again(scene, attack), *ends, before_4=before_4, alone=True)


TOKEN_KNOWN = "the token"
ATTACKS: dict[str, Attack] = {
    "publish": Attack(
        "forge a reply: publish it with the routing key of the reply", TOKEN_KNOWN, _forging(plain),
        BROKER, CLIENT_REJECTS, BROKER,
    ),
    "cc": Attack(
        "forge a reply: publish a request of her own, with that key in the header `CC`", TOKEN_KNOWN,
        _forging(copied("CC")), SUCCEEDS, CLIENT_REJECTS, CLIENT_REJECTS,
    ),
    "bcc": Attack(
        "the same with the header `BCC`", TOKEN_KNOWN, _forging(copied("BCC")),
        SUCCEEDS, CLIENT_REJECTS, CLIENT_REJECTS,
    ),
    "dead-letter": Attack(
        "forge a reply: let it expire in a queue whose dead letters go to that key", TOKEN_KNOWN, _forging(dead_letter),
        SUCCEEDS, CLIENT_REJECTS, CLIENT_REJECTS,
    ),
    "true-dead-letter": Attack(
        "let a genuine reply of the server, with content of her choice, expire in such a queue", TOKEN_KNOWN,
        _forging(true_dead_letter), SUCCEEDS, CLIENT_REJECTS, CLIENT_REJECTS,
    ),
    "alternate-exchange": Attack(
        "forge a reply: publish it to an exchange whose alternate exchange is `jsonrpc`", TOKEN_KNOWN,
        _forging(alternate_exchange), BROKER, CLIENT_REJECTS, BROKER,
    ),
    "exchange-binding": Attack(
        "forge a reply: publish it to an exchange that `jsonrpc` is bound to", TOKEN_KNOWN,
        _forging(bound_exchange), BROKER, CLIENT_REJECTS, BROKER,
    ),
    "reply-queue": Attack(
        "forge a reply: publish it to the reply queue by its name", "the queue's name", _forging(to_reply_queue),
        BROKER, CLIENT_REJECTS, BROKER,
    ),
    "reply-to": Attack(
        "make the server reply to that queue: a request with its name in `reply_to`", "the queue's name",
        _forging(by_reply_to), REPLY_REFUSED, CLIENT_REJECTS, REPLY_REFUSED,
    ),
    "false-name": Attack(
        "make the server reply to the victim: a request with the victim's name in its key", TOKEN_KNOWN,
        _forging(with_the_name_of_another), BROKER, SERVER_REFUSES, BROKER,
    ),
    "take-and-answer": Attack(
        "take a request from the queue of the service, and reply to it", "nothing",
        lambda scene: take(scene, reply_in_its_place), BROKER, CLIENT_REJECTS, BROKER,
    ),
    "take": Attack(
        "take requests from the queue of the service", "nothing", lambda scene: take(scene, take_requests),
        BROKER, SUCCEEDS, BROKER,
    ),
    "copy-requests": Attack(
        "read requests: bind a queue with `S.request.#`", "nothing", _reading(copies_of_requests),
        BROKER, SUCCEEDS, BROKER,
    ),
    "read-all": Attack(
        "read replies to others: bind a queue with `S.response.#`", "nothing", _reading(all_replies),
        BROKER, SUCCEEDS, BROKER,
    ),
    "read-one": Attack(
        "read replies to others: bind a queue with the victim's key", TOKEN_KNOWN, _reading(replies_to_victim),
        BROKER, SUCCEEDS, BROKER,
    ),
    "read-exchange": Attack(
        "read everything: bind an exchange of her own to `jsonrpc`", "nothing", _reading(by_an_exchange),
        BROKER, SUCCEEDS, BROKER,
    ),
    "replay": Attack(
        "have another user's request served again: dead-letter it from a queue that is bound with `S.request.*.*`",
        "nothing", replay, BROKER, SERVER_REFUSES, BROKER,
    ),
    "another-service": Attack(
        "call a service without permission: copy a request into a queue of her own (`CC`), whose dead letters go "
        "to that service", "nothing", call_another_service, SUCCEEDS, SERVER_REFUSES, SERVER_REFUSES,
    ),
    "direct": Attack(
        "forge a reply: publish it to a direct reply-to", "its name", lambda scene: forge_direct(scene, to_direct),
        BROKER, CLIENT_REJECTS, BROKER, direct=True,
    ),
    "direct-reply-to": Attack(
        "make the server reply to a direct reply-to: a request with its name in `reply_to`", "its name",
        lambda scene: forge_direct(scene, by_direct_reply_to), SUCCEEDS, SUCCEEDS, SUCCEEDS, direct=True,
    ),
    "sent-again-expired": _sent_again(
        "it expires while the servers are busy, with a header `x-death` of hers, with which it is kept",
        expiring({"x-death": "junk"}), SUCCEEDS, NOT_SENT_AGAIN, NOT_SENT_AGAIN, before_4=True,
    ),
    "sent-again-two-headers": _sent_again(
        "the same with a second header `x-death`, which says that a server rejected it",
        expiring(Pairs(("x-death", "junk"), ("x-death", [REJECTED]))), SUCCEEDS, NOT_SENT_AGAIN, NOT_SENT_AGAIN,
        before_4=True,
    ),
    "sent-again-two-reasons": _sent_again(
        "the same with two reasons in one `x-death`", expiring({"x-death": [EXPIRED_AND_REJECTED]}),
        SUCCEEDS, NOT_SENT_AGAIN, NOT_SENT_AGAIN, before_4=True,
    ),
    "sent-again-overflow": _sent_again(
        "it is dropped from a queue that is full (`max-length`)", overflowing,
        SUCCEEDS, NOT_SENT_AGAIN, NOT_SENT_AGAIN,
    ),
    "sent-again-queue": _sent_again(
        "she publishes it to `S_dead` by its name, with such a header", put_there("", f"{SERVICE}_dead"),
        BROKER, NOT_SENT_AGAIN, BROKER,
    ),
    "sent-again-exchange": _sent_again(
        "she publishes it to the exchange `S_dead`, with such a header", put_there(f"{SERVICE}_dead", "k"),
        BROKER, SUCCEEDS, BROKER,
    ),
    "listed-as-anothers": Attack(
        "have an operator's `dead list` show such a request as another user's: the name of its method has spaces, and "
        "that user", "nothing", list_as_anothers, SUCCEEDS, LISTED_AS_HERS, LISTED_AS_HERS, before_4=True, alone=True,
    ),
    "dialect": Attack(
        "forge a reply: a request in the dialect recipe2011, with that key as its `qid`; without `verify_user`",
        TOKEN_KNOWN, by_the_dialect, SERVER_REFUSES, SERVER_REFUSES, SERVER_REFUSES, by_nothing=SERVER_REFUSES,
        alone=True,
    ),
    "refused-and-large": Attack(
        "disturb calls: requests with replies that the broker refuses (`reply_to` `amq.gen-x`), then replies of 5 MB",
        "nothing", _disturbing(refused_and_large(reply_to="amq.gen-x")), UNHARMED, UNHARMED, UNHARMED,
        by_nothing=UNHARMED,
    ),
    "many-refused": Attack(
        "disturb calls: 2,000 such requests at once", "nothing", _disturbing(many_refused(reply_to="amq.gen-x")),
        UNHARMED, UNHARMED, UNHARMED, by_nothing=UNHARMED,
    ),
    "refused-and-large-direct": Attack(
        "the same, where replies go to direct reply-tos: requests without `reply_to`, then replies of 5 MB", "nothing",
        _disturbing(refused_and_large()), UNHARMED, UNHARMED, UNHARMED, direct=True, by_nothing=UNHARMED,
    ),
    "many-refused-direct": Attack(
        "disturb calls: 2,000 such requests at once", "nothing", _disturbing(many_refused()),
        UNHARMED, UNHARMED, UNHARMED, direct=True, by_nothing=UNHARMED,
    ),
    "made-up-names": Attack(
        "disturb calls: `reply_to` with names of direct reply-tos that the broker has not made", "nothing",
        _disturbing(made_up_names()), UNHARMED, UNHARMED, UNHARMED, by_nothing=UNHARMED,
    ),
    "made-up-names-direct": Attack(
        "the same, where replies go to direct reply-tos; also a genuine name with other numbers", "nothing",
        _disturbing(made_up_names(real=name_of_direct)), UNHARMED, UNHARMED, UNHARMED, direct=True, by_nothing=UNHARMED,
    ),
    "made-up-names-queue": Attack(
        "the same with requests to the queue of the service, by its name", "nothing",
        _disturbing(made_up_names(queue=True)), BROKER, UNHARMED, BROKER, by_nothing=UNHARMED,
    ),
}  # fmt: skip
