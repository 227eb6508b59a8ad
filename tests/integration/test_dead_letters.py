"""Dead letters: listed, sent again, removed; on a real broker."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import click
import pika
import pytest

from jsonrpc_amqp import (
    AccessRefused,
    DeadLetter,
    DeadLetters,
    EncodeError,
    InvalidName,
    NoDeadLetter,
    NotConnected,
    NotRequeued,
    Overloaded,
    Server,
    TopologyMismatch,
    Unroutable,
    current_request,
)
from jsonrpc_amqp.amqp.queue_browser import QueueBrowser
from jsonrpc_amqp.cli import TRANSPORT_ERROR, USAGE_ERROR, main

from ..broker import Broker
from ..command import COMMAND, ROOT, run, serving
from ..dead_letters import JUNK, two_that_begin_alike
from ..grown import grow
from ..tools import wait_for

NOTIFICATION = b'{"jsonrpc": "2.0", "method": "record", "params": [1]}'
CALL = b'{"jsonrpc": "2.0", "method": "record", "params": [1], "id": 1}'
# What must never reach a terminal.
HOSTILE = "\x1b[2J\x07\x9b31m\u202e\n\r\u200f\ufeff\U000e0041"


class Queues:
    """The queues of one service, and a consumer that rejects requests."""

    def __init__(self, url: str, service: str) -> None:
        self.url = url
        self.service = service
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()

    def declare(self, queue_type: Literal["classic", "quorum"] = "classic", delivery_limit: int = 20) -> None:
        """Have a server declare the queues, and stop it."""
        with Server(
            self.url, self.service, dead_letters=True, queue_type=queue_type, delivery_limit=delivery_limit, methods={}
        ):
            pass

    def send(self, body: bytes, key: str = "someone", **properties: Any) -> None:
        """Leave a request in the queue of the service."""
        properties = pika.BasicProperties(delivery_mode=2, **properties)
        self.channel.basic_publish("jsonrpc", f"{self.service}.request.{key}", body, properties, mandatory=True)

    def reject(self, body: bytes, key: str = "someone", **properties: Any) -> None:
        """Send a request and reject it, so that it becomes a dead letter."""
        before = self.waiting("dead")
        self.send(body, key, **properties)
        method, _properties, _body = self.channel.basic_get(f"{self.service}_req")
        self.channel.basic_reject(method.delivery_tag, requeue=False)
        # The broker moves it asynchronously.
        wait_for(lambda: self.waiting("dead") == before + 1)

    def give_up_on(self, body: bytes, **properties: Any) -> None:
        """Have a request reach the delivery limit, 1, of a quorum queue: no server has checked it."""
        before = self.waiting("dead")
        self.send(body, **properties)

        def is_dead() -> bool:
            method, _properties, _body = self.channel.basic_get(f"{self.service}_req")
            if method is not None:
                self.channel.basic_reject(method.delivery_tag, requeue=True)
            return self.waiting("dead") == before + 1

        wait_for(is_dead)

    def waiting(self, which: str) -> int:
        """Return how many messages a queue has: "req" or "dead"."""
        count: int = self.channel.queue_declare(f"{self.service}_{which}", passive=True).method.message_count
        return count

    def close(self) -> None:
        for queue in ("req", "dead"):
            self.channel.queue_delete(f"{self.service}_{queue}")
        for exchange in ("dead", "dead_kept", "dead_expired"):
            self.channel.exchange_delete(f"{self.service}_{exchange}")
        self._connection.close()


@pytest.fixture
def empty(url: str, service: str) -> Iterator[Queues]:
    queues = Queues(url, service)
    yield queues
    queues.close()


@pytest.fixture
def queues(empty: Queues) -> Queues:
    empty.declare()
    return empty


@pytest.fixture
def dead(url: str, service: str) -> Iterator[DeadLetters]:
    with DeadLetters(url, service, timeout=10) as letters:
        yield letters


def bodies(letters: list[DeadLetter]) -> list[bytes]:
    return [letter.body for letter in letters]


# -- listing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_listing_leaves_all_in_place_and_in_order(empty: Queues, dead: DeadLetters, queue_type: Any) -> None:
    empty.declare(queue_type)
    sent = [b"%d" % number for number in range(20)]
    for body in sent:
        empty.reject(body)
    letters = dead.list()
    assert bodies(letters) == sent
    for _ in range(3):
        assert dead.get(letters[7].key).body == sent[7]
        assert [(letter.key, letter.body) for letter in dead.list()] == [(each.key, each.body) for each in letters]
    assert empty.waiting("dead") == 20
    assert dead.purge(letters[1].key, letters[18].key) == 2
    assert bodies(dead.list()) == [sent[0], *sent[2:18], sent[19]]


def test_a_quorum_queue_that_was_listed_often(empty: Queues, dead: DeadLetters) -> None:
    empty.declare("quorum")
    for number in range(50):
        empty.reject(b"%d" % number)
        time.sleep(0.04)
    for _ in range(3):
        letters = dead.list()
        assert sorted(bodies(letters)) == sorted(b"%d" % number for number in range(50))
        died = [letter.died for letter in letters if letter.died is not None]
        assert died == sorted(died)
        assert len(set(died)) > 1


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_list_has_all_that_the_list_before_it_returned(empty: Queues, dead: DeadLetters, queue_type: Any) -> None:
    empty.declare(queue_type)
    for number in range(500):
        empty.channel.basic_publish("", f"{empty.service}_dead", b"%d" % number)
    for limit in (500, 300, 500, 500):
        assert len(set(bodies(dead.list(limit=limit)))) == limit
        assert empty.waiting("dead") == 500
    assert dead.purge(all=True) == 500


def test_no_more_than_the_limit_are_listed(queues: Queues, dead: DeadLetters) -> None:
    for number in range(5):
        queues.reject(b"%d" % number)
    assert bodies(dead.list(limit=3)) == [b"0", b"1", b"2"]
    assert [(letter.body, letter.size) for letter in dead.list(bodies=False)] == [(b"", 1)] * 5
    assert len(dead.list(limit=6)) == 5


def test_all_that_is_known_of_a_letter(queues: Queues, dead: DeadLetters, service: str) -> None:
    now = datetime.now(UTC)
    queues.reject(
        NOTIFICATION, "alice-k3x9q0zr71bd", user_id="guest", message_id="m1", headers={"trace": "t", "deep": {"a": [1]}}
    )
    (letter,) = dead.list()
    assert letter.routing_key == f"{service}.request.alice-k3x9q0zr71bd"
    assert (letter.user_id, letter.message_id, letter.correlation_id) == ("guest", "m1", None)
    assert (letter.reason, letter.count, letter.is_notification, letter.method) == ("rejected", 1, True, "record")
    assert letter.checked
    assert letter.died is not None
    assert abs(letter.died - now) < timedelta(seconds=30)
    assert letter.headers["trace"] == "t"
    assert letter.headers["deep"] == {"a": [1]}
    assert letter.headers["x-first-death-queue"] == f"{service}_req"
    assert letter.body == NOTIFICATION
    assert len(letter.key) == 12


def test_what_reached_its_delivery_limit(empty: Queues, dead: DeadLetters) -> None:
    empty.declare("quorum", delivery_limit=1)
    empty.give_up_on(CALL, correlation_id="7")
    (letter,) = dead.list()
    assert (letter.reason, letter.correlation_id, letter.is_notification) == ("delivery_limit", "7", False)


def test_what_expired_is_no_dead_letter(queues: Queues, dead: DeadLetters) -> None:
    for _ in range(3):
        queues.send(CALL, expiration="1")
    wait_for(lambda: queues.waiting("req") == 0)
    queues.reject(NOTIFICATION)  # had they been kept, they would be there before it
    assert bodies(dead.list()) == [NOTIFICATION]


def test_a_request_that_had_died_before_is_kept_when_it_is_rejected(queues: Queues, dead: DeadLetters) -> None:
    # As after a delay by means of a queue with a time to live; and what a sender may invent.
    delayed = {"reason": "expired", "queue": "delay", "count": 1, "exchange": "", "routing-keys": ["k"]}
    first = {"x-first-death-reason": "expired", "x-first-death-queue": "delay", "x-first-death-exchange": ""}
    queues.reject(NOTIFICATION, headers={"x-death": [delayed], **first})
    queues.reject(NOTIFICATION, headers={"x-death": [delayed]})
    assert [letter.reason for letter in dead.list()] == ["rejected", "rejected"]


def test_a_sender_cannot_say_how_its_request_died(queues: Queues, dead: DeadLetters) -> None:
    forged = {"reason": "forged", "queue": "q", "count": 9, "exchange": "", "routing-keys": ["k"]}
    queues.reject(NOTIFICATION, headers={"x-death": [forged], "x-first-death-reason": "rejected"})
    (letter,) = dead.list()
    assert (letter.reason, letter.count) == ("rejected", 1)


def test_letters_that_are_alike_share_a_key_and_others_do_not(queues: Queues, dead: DeadLetters) -> None:
    for body, key, message_id in [
        (b"1", "a", "m"),
        (b"1", "a", "m"),
        (b"2", "a", "m"),
        (b"1", "b", "m"),
        (b"1", "a", "n"),
    ]:
        queues.reject(body, key, message_id=message_id)
    queues.reject(b"1", "a", message_id="m", user_id="guest")
    keys = [letter.key for letter in dead.list()]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5
    assert dead.purge(keys[0]) == 2
    assert [letter.key for letter in dead.list()] == keys[2:]


def test_a_key_may_be_cut_as_long_as_no_other_begins_so(queues: Queues, dead: DeadLetters, service: str) -> None:
    for body in two_that_begin_alike(f"{service}.request.someone", checked=True):
        queues.reject(body)
    one, other = dead.list()
    for verb in (dead.get, dead.purge, dead.requeue):
        with pytest.raises(NoDeadLetter, match=f"2 dead letters have a key that begins with {one.key[:4]}"):
            verb(one.key[:4])
    assert dead.get(other.key[:11]).body == other.body
    assert dead.purge(one.key[:11]) == 1
    assert dead.get(other.key[:4]).body == other.body


@pytest.mark.parametrize("key", ["", "abc", "ABCD", "xyz12", "ab cd", "0" * 65, "all\x1b"])
def test_what_is_no_key(dead: DeadLetters, queues: Queues, key: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal") as caught:
        dead.get(key)
    assert str(caught.value).isprintable()


def test_an_unknown_key(queues: Queues, dead: DeadLetters) -> None:
    queues.reject(NOTIFICATION)
    (letter,) = dead.list()
    unknown = f"{int(letter.key, 16) ^ 1:012x}"
    for verb in (dead.purge, dead.requeue):
        with pytest.raises(NoDeadLetter, match=unknown):
            verb(letter.key, unknown)
    assert queues.waiting("dead") == 1


def test_junk_is_listed_as_it_is(queues: Queues, dead: DeadLetters) -> None:
    for body, _method in JUNK:
        queues.reject(body)
    letters = dead.list()
    assert [(letter.body, letter.method) for letter in letters] == JUNK
    assert not any(letter.is_notification for letter in letters)


def test_texts_that_are_not_utf_8(queues: Queues, dead: DeadLetters, service: str) -> None:
    junk = b"\xff\xfea"
    with_junk: dict[str, Any] = dict.fromkeys(("message_id", "correlation_id", "content_type", "type", "app_id"), junk)
    queues.reject(NOTIFICATION, headers={"value": junk, "deep": {"value": junk}}, reply_to=junk, **with_junk)
    queues.reject(CALL)
    letter, after = dead.list()
    assert letter.message_id == letter.correlation_id == "\udcff\udcfea"
    assert letter.headers["value"] == junk
    assert letter.reason == "rejected"
    assert after.body == CALL
    shown = run("dead", "show", letter.key, "--service", service, url=queues.url)
    assert shown.returncode == 0
    assert "\\udcff\\udcfea" in shown.stdout
    listed = run("dead", "list", "--json", "--service", service, url=queues.url)
    assert json.loads(listed.stdout.splitlines()[0])["message_id"] == letter.message_id
    assert dead.requeue(letter.key) == (1, 0)


def test_headers_that_cannot_be_read(queues: Queues, dead: DeadLetters) -> None:
    nested: dict[str, Any] = {}
    for _ in range(2000):
        nested = {"n": nested}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        queues.reject(NOTIFICATION, headers={"nested": nested})
    finally:
        sys.setrecursionlimit(limit)
    (letter,) = dead.list()
    assert (letter.reason, letter.count, letter.body) == ("rejected", 1, NOTIFICATION)
    assert dead.requeue(all=True) == (0, 1)
    with pytest.raises(NotRequeued, match="its header 'nested' cannot be read, and would be lost"):
        dead.requeue(letter.key)
    assert dead.purge(letter.key) == 1


def test_headers_that_are_too_large_to_be_sent_again_hold_up_no_other_letter(queues: Queues, dead: DeadLetters) -> None:
    # With what RabbitMQ adds, they are in a larger frame than was agreed on.
    queues.reject(NOTIFICATION, headers={"large": "x" * 131_000}, message_id="large")
    queues.reject(NOTIFICATION, message_id="small")
    assert [letter.message_id for letter in dead.list()] == ["large", "small"]
    assert dead.requeue(all=True) == (1, 1)
    (letter,) = dead.list()
    assert len(letter.headers["large"]) == 131_000
    with pytest.raises(EncodeError, match=f"the largest header is 'large'.*The dead letter {letter.key} stays"):
        dead.requeue(letter.key)
    assert dead.purge(letter.key) == 1


# -- sending again ----------------------------------------------------------------------------------------


def test_a_notification_is_sent_again_and_gone(queues: Queues, dead: DeadLetters, url: str, service: str) -> None:
    ran: list[Any] = []

    def record(number: int) -> None:
        request = current_request()
        ran.append((number, request.user_id, dict(request.headers), request.is_notification, request.redelivered))

    hop = {"trace": "t", "number": 2**40, "deep": {"a": [1, None, True]}, "timeout-ms": 1}
    queues.reject(NOTIFICATION, headers={**hop, "CC": ["elsewhere"]}, message_id="m")
    (letter,) = dead.list()
    assert dead.requeue(letter.key) == (1, 0)
    assert (queues.waiting("dead"), queues.waiting("req")) == (0, 1)
    with Server(url, service, methods={"record": record}, declare=False):
        wait_for(lambda: bool(ran))
        wait_for(lambda: queues.waiting("req") == 0)
    del hop["timeout-ms"]
    assert ran == [(1, "guest", hop, True, False)]


def test_what_no_server_has_checked_is_sent_again_by_its_key_only(empty: Queues, dead: DeadLetters) -> None:
    empty.declare("quorum", delivery_limit=1)
    empty.give_up_on(NOTIFICATION, user_id="guest")
    (letter,) = dead.list()
    assert (letter.checked, letter.reason, letter.user_id) == (False, "delivery_limit", "guest")
    assert dead.requeue(all=True) == (0, 1)
    with pytest.raises(NotRequeued, match=r"no server has checked that its sender, user 'guest', may call .*unchecked"):
        dead.requeue(letter.key)
    with pytest.raises(ValueError, match="look at each"):
        dead.requeue(all=True, unchecked=True)
    assert (empty.waiting("dead"), empty.waiting("req")) == (1, 0)
    assert dead.requeue(letter.key, unchecked=True) == (1, 0)
    wait_for(lambda: (empty.waiting("dead"), empty.waiting("req")) == (0, 1))


def test_a_call_is_not_sent_again_though_it_is_named_as_unchecked(queues: Queues, dead: DeadLetters) -> None:
    queues.reject(CALL)
    (letter,) = dead.list()
    with pytest.raises(NotRequeued, match="it is a call"):
        dead.requeue(letter.key, unchecked=True)


def test_the_request_queue_may_have_another_name(queues: Queues, url: str, service: str) -> None:
    queues.reject(NOTIFICATION)
    with DeadLetters(url, service, request_queue="other") as dead:
        assert [letter.checked for letter in dead.list()] == [False]
    with DeadLetters(url, service, request_queue=f"{service}_req") as dead:
        assert [letter.checked for letter in dead.list()] == [True]


def test_the_commands_tell_what_is_unchecked(empty: Queues, service: str) -> None:
    empty.declare("quorum", delivery_limit=1)
    empty.reject(NOTIFICATION)
    empty.give_up_on(NOTIFICATION, user_id="guest")
    options = ["--service", service]
    checked, unchecked = run("dead", "list", *options, url=empty.url).stdout.splitlines()
    assert checked.endswith(" bytes")
    assert unchecked.endswith(" bytes  unchecked")
    assert "  guest  " in unchecked
    key = unchecked.split()[0]
    assert "checked: false\n" in run("dead", "show", key, *options, url=empty.url).stdout
    done = run("dead", "requeue", key, *options, url=empty.url)
    assert done.returncode == USAGE_ERROR
    assert "--unchecked" in done.stderr
    assert run("dead", "requeue", "--all", "--unchecked", *options, url=empty.url).returncode == USAGE_ERROR
    wait_for(lambda: empty.waiting("dead") == 2)
    done = run("dead", "requeue", "--all", *options, url=empty.url)
    assert done.stdout == "sent again: 1\nleft, since they are calls, unchecked, or cannot be read: 1\n"
    assert run("dead", "requeue", key, "--unchecked", *options, url=empty.url).stdout == "sent again: 1\n"
    wait_for(lambda: empty.waiting("dead") == 0)


def test_a_call_is_refused_and_nothing_is_sent(queues: Queues, dead: DeadLetters) -> None:
    for body in (NOTIFICATION, CALL):
        queues.reject(body)
    notification, call = dead.list()
    with pytest.raises(NotRequeued, match=f"{call.key} is not sent again: it is a call.*purge"):
        dead.requeue(notification.key, call.key)
    assert (queues.waiting("dead"), queues.waiting("req")) == (2, 0)


def test_all_sends_notifications_and_leaves_calls_in_order(queues: Queues, dead: DeadLetters, service: str) -> None:
    batch = b"[%b, %b]" % (NOTIFICATION, NOTIFICATION)
    mixed = b"[%b, %b]" % (NOTIFICATION, CALL)
    large = NOTIFICATION.replace(b"[1]", b'["%b"]' % (b"x" * 300_000))
    for body in (CALL, NOTIFICATION, mixed, batch, b"junk", large):
        queues.reject(body)
    assert dead.requeue(all=True) == (3, 3)
    assert bodies(dead.list()) == [CALL, mixed, b"junk"]
    got = [queues.channel.basic_get(f"{service}_req", auto_ack=True) for _ in range(3)]
    assert [body for _method, _properties, body in got] == [NOTIFICATION, batch, large]
    assert {properties.delivery_mode for _method, properties, _body in got} == {2}
    assert dead.requeue(all=True) == (0, 3)


def test_without_a_queue_that_takes_it_a_letter_stays(queues: Queues, dead: DeadLetters, service: str) -> None:
    queues.reject(NOTIFICATION)
    queues.channel.queue_unbind(f"{service}_req", "jsonrpc", f"{service}.request.#")
    (letter,) = dead.list()
    with pytest.raises(Unroutable, match=f"dead letter {letter.key} stays; 0 before it were sent"):
        dead.requeue(letter.key)
    assert dead.get(letter.key).body == NOTIFICATION


def test_a_failure_in_between_stops_and_says_how_many_were_sent(
    broker: Broker, queues: Queues, dead: DeadLetters, service: str
) -> None:
    sent = [NOTIFICATION.replace(b"1", b"%d" % number) for number in range(4)]
    for body in sent:
        queues.reject(body)
    limits = '{"max-length": 2, "overflow": "reject-publish"}'
    broker.ctl("set_policy", "--apply-to", "queues", service, f"^{service}_req$", limits)
    with pytest.raises(Overloaded, match="2 before it were sent again"):
        dead.requeue(all=True)
    assert queues.waiting("req") == 2
    assert bodies(dead.list()) == sent[2:]
    broker.ctl("clear_policy", service)


def test_a_missing_exchange(queues: Queues, url: str, service: str) -> None:
    queues.reject(NOTIFICATION)
    with (
        DeadLetters(url, service, exchange=f"no-{service}") as dead,
        pytest.raises(TopologyMismatch, match="no exchange"),
    ):
        dead.requeue(all=True)
    assert queues.waiting("dead") == 1


# -- removing ---------------------------------------------------------------------------------------------


def test_purge(queues: Queues, dead: DeadLetters) -> None:
    sent = [b"%d" % number for number in range(5)]
    for body in sent:
        queues.reject(body)
    keys = [letter.key for letter in dead.list()]
    assert dead.purge(keys[3], keys[1]) == 2
    assert bodies(dead.list()) == [b"0", b"2", b"4"]
    assert dead.purge(all=True) == 3
    assert dead.list() == []
    assert dead.purge(all=True) == 0


def test_letters_have_to_be_named(dead: DeadLetters) -> None:
    for verb in (dead.requeue, dead.purge):
        for choice in ((), ("abcd", True)):
            with pytest.raises(ValueError, match="say which"):
                verb(*choice[:1], all=len(choice) > 1)


# -- errors --------------------------------------------------------------------------------------------


def test_a_service_that_keeps_none(url: str, service: str) -> None:
    with DeadLetters(url, service) as dead:
        for look in (dead.list, lambda: dead.get("abcd"), lambda: dead.purge(all=True), lambda: dead.requeue(all=True)):
            with pytest.raises(TopologyMismatch, match=f"no queue '{service}_dead'.*dead_letters=True"):
                look()


def test_another_queue(queues: Queues, url: str, service: str) -> None:
    queues.send(CALL)
    with DeadLetters(url, service, queue=f"{service}_req") as dead:
        (letter,) = dead.list()
    assert (letter.body, letter.reason, letter.count, letter.died) == (CALL, None, None, None)


def test_no_memory() -> None:
    with pytest.raises(ValueError, match="RabbitMQ only"):
        DeadLetters("memory://", "s")


def test_what_cannot_be_meant_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidName):
        DeadLetters(url, "a.request")
    with pytest.raises(ValueError, match="URL"):
        DeadLetters("ftp://h", "s")
    with pytest.raises(ValueError, match="TLS"):
        DeadLetters(url, "s", tls={"ca_certs": "ca.pem"})


def test_its_repr_has_no_password() -> None:
    assert repr(DeadLetters("amqp://u:sentinel@h", "s")) == "<DeadLetters of 's' at amqp://u:***@h>"


def test_the_next_broker_where_one_is_down(queues: Queues, url: str, service: str) -> None:
    queues.reject(NOTIFICATION)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with DeadLetters(f"amqp://127.0.0.1:{taken.getsockname()[1]};{url}", service) as dead:
            assert bodies(dead.list()) == [NOTIFICATION]


@pytest.fixture
def operator(broker: Broker, service: str) -> Iterator[str]:
    """Return the URL of a user who may read the dead letters, and send requests, and nothing else."""
    broker.ctl("add_user", service, "secret")
    broker.ctl("set_permissions", service, "^$", "^jsonrpc$", f"^{service}_dead$")
    broker.restrict_topics(service, rf"^{service}\.request\..+$", "^$")
    yield broker.url.replace("guest:guest", f"{service}:secret")
    broker.ctl("delete_user", service)


def test_the_rights_that_an_operator_needs(queues: Queues, operator: str, service: str) -> None:
    for body in (NOTIFICATION, CALL):
        queues.reject(body)
    with DeadLetters(operator, service) as dead:
        assert len(dead.list()) == 2
        assert dead.requeue(all=True) == (1, 1)
        assert dead.purge(all=True) == 1
    _method, properties, _body = queues.channel.basic_get(f"{service}_req", auto_ack=True)
    assert properties.user_id == service


def test_a_user_who_may_not_read_them(broker: Broker, queues: Queues, operator: str, service: str) -> None:
    queues.reject(NOTIFICATION)
    broker.ctl("set_permissions", service, "^$", "^jsonrpc$", "^$")
    with DeadLetters(operator, service) as dead, pytest.raises(AccessRefused, match=f"{service}_dead"):
        dead.list()
    assert queues.waiting("dead") == 1


def test_refused_credentials(url: str, service: str) -> None:
    with DeadLetters(url.replace("guest@", "wrong@"), service) as dead, pytest.raises(AccessRefused):
        dead.list()


def test_a_frozen_broker_is_not_waited_for(fragile: Broker, service: str) -> None:
    node = fragile
    queues = Queues(node.url, service)
    queues.declare()
    queues.reject(NOTIFICATION)
    browser = QueueBrowser(
        node.url, f"{service}_dead", max_body=1 << 20, timeout=1, connect_timeout=5, connection_name="t", tls=None
    )
    assert browser.count == 1
    node.freeze()
    began = time.monotonic()
    with pytest.raises(NotConnected, match=r"did not answer in time|timed out"):
        browser.get()
    browser.close()
    assert 0.9 < time.monotonic() - began < 4
    node.thaw()
    queues.close()


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_letters_whose_headers_have_grown_keep_no_other_from_being_read(
    empty: Queues, dead: DeadLetters, service: str, queue_type: Any
) -> None:
    empty.declare(queue_type)
    empty.channel.queue_bind(f"{service}_dead", "jsonrpc", "grown")
    for notification in (NOTIFICATION, NOTIFICATION.replace(b"1", b"2")):
        empty.reject(notification, headers={"trace": "t"})
    sent = grow(empty.channel, NOTIFICATION, "grown", f"{service}.own", 1_200_000, user_id="guest")
    wait_for(lambda: empty.waiting("dead") == sent + 2)
    letters = dead.list()
    assert sorted(len(letter.headers.get("x-death", ())) for letter in letters)[-1] == sent - 1
    assert bodies(letters).count(NOTIFICATION) == sent + 1
    assert {letter.user_id for letter in letters} == {None, "guest"}
    # Those that came to the queue by a binding of their sender's were rejected by no server.
    done = dead.requeue(all=True)
    assert (done.sent, done.left) == (2, sent)
    keys = {letter.key for letter in letters if not letter.checked}
    assert dead.requeue(*keys, unchecked=True).sent == sent
    assert empty.waiting("req") == sent + 2
    assert dead.purge(all=True) == 0


# -- the command ------------------------------------------------------------------------------------------


def printable_lines(text: str) -> list[str]:
    lines = text.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    return lines


def test_show_cuts_what_is_long(queues: Queues, service: str) -> None:
    """Indented, this takes a hundred times its size."""
    deep = b'{"a": %b1%b}' % (b"[" * 94, b"]" * 94)
    body = b"[%b]" % b",".join([deep] * 400)
    queues.reject(body, headers={"long": "x" * 100_000}, message_id="deep")
    queues.reject(b'{"method": "%b"}' % ("é" * 300_000).encode(), message_id="long")
    queues.reject(b"\x1b" * 300_000, message_id="junk")
    for line in run("dead", "list", "--service", service, url=queues.url).stdout.splitlines():
        assert len(line) < 1000
        shown = run("dead", "show", line.split()[0], "--service", service, url=queues.url)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert len(shown.stdout) < 150_000
        assert all(each.isprintable() for each in shown.stdout.splitlines())
        assert shown.stdout.endswith("... cut (--raw prints all of it)\n")
    assert "... cut\n" in run("dead", "show", dead_key(queues, "deep"), "--service", service, url=queues.url).stdout
    for message_id, sent in (("deep", body), ("junk", b"\x1b" * 300_000)):
        command = [*COMMAND, "dead", "show", dead_key(queues, message_id), "--raw", "--service", service]
        done = subprocess.run([*command, "--url", queues.url], capture_output=True, timeout=60, cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr) == (0, sent, b"")


def dead_key(queues: Queues, message_id: str) -> str:
    with DeadLetters(queues.url, queues.service) as dead:
        return next(letter.key for letter in dead.list() if letter.message_id == message_id)


def test_list_and_show(queues: Queues, url: str, service: str) -> None:
    queues.reject(NOTIFICATION, user_id="guest", headers={"trace": "é"})
    queues.reject(CALL)
    with DeadLetters(url, service) as dead:
        notification, call = dead.list()
    assert notification.died is not None
    died = notification.died.strftime("%Y-%m-%dT%H:%M:%SZ")
    done = run("dead", "list", "--service", service, url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in printable_lines(done.stdout)] == [
        [notification.key, died, "rejected", "notification", "record", "guest", "53", "bytes"],
        [call.key, call.died.strftime("%Y-%m-%dT%H:%M:%SZ"), "rejected", "call", "record", "-", "62", "bytes"],  # type: ignore[union-attr]
    ]
    assert printable_lines(run("dead", "list", "--limit", "1", "--service", service, url=url).stdout) == [
        printable_lines(done.stdout)[0]
    ]
    done = run("dead", "list", "--json", "--service", service, url=url)
    first, second = map(json.loads, printable_lines(done.stdout))
    assert first["headers"].pop("x-death")[0]["reason"] == "rejected"
    # RabbitMQ 4 says both.
    first["headers"] = {name: value for name, value in first["headers"].items() if "x-last-death" not in name}
    assert first == {
        "key": notification.key,
        "died": died,
        "reason": "rejected",
        "count": 1,
        "checked": True,
        "is_notification": True,
        "method": "record",
        "user_id": "guest",
        "message_id": None,
        "correlation_id": None,
        "routing_key": f"{service}.request.someone",
        "headers": {
            "trace": "é",
            "x-first-death-exchange": "jsonrpc",
            "x-first-death-queue": f"{service}_req",
            "x-first-death-reason": "rejected",
        },
        "body": NOTIFICATION.decode(),
    }
    assert (second["is_notification"], second["user_id"]) == (False, None)
    done = run("dead", "show", notification.key[:6], "--service", service, url=url)
    assert (done.returncode, done.stderr) == (0, "")
    head, body = done.stdout.split("body, 53 bytes:\n")
    assert json.loads(body) == json.loads(NOTIFICATION)
    assert '\n  "params": [\n' in body
    lines = printable_lines(head)
    assert f'key: "{notification.key}"' in lines
    assert 'header trace: "é"' in lines
    assert queues.waiting("dead") == 2


def test_nothing_from_the_wire_steers_the_terminal(queues: Queues, url: str, service: str) -> None:
    deep: Any = HOSTILE
    for _ in range(100):
        deep = {HOSTILE: [deep]}
    in_json = json.dumps({"jsonrpc": "2.0", "method": HOSTILE * 100, HOSTILE: [HOSTILE]}, ensure_ascii=False).encode()
    for body in (in_json, HOSTILE.encode(), b"\x9b31m\xff", b'["\\ud800\x1b"]', b'["\\ud800"]'):
        queues.reject(
            body,
            f"x{HOSTILE}",
            message_id=HOSTILE,
            correlation_id=HOSTILE,
            headers={HOSTILE: HOSTILE, f"deep{HOSTILE}": deep, "bytes": HOSTILE.encode("utf-16")},
        )
    with DeadLetters(url, service) as dead:
        letters = dead.list()
    done = run("dead", "list", "--service", service, url=url)
    assert done.returncode == 0
    assert len(printable_lines(done.stdout)) == 5
    assert max(map(len, printable_lines(done.stdout))) < 400
    done = run("dead", "list", "--json", "--service", service, url=url)
    shown = [json.loads(line) for line in printable_lines(done.stdout)]
    assert [each["routing_key"] for each in shown] == [f"{service}.request.x{HOSTILE}"] * 5
    assert [each["body"].encode("utf-8", "surrogateescape") for each in shown] == bodies(letters)
    assert shown[0]["method"] == HOSTILE * 100
    for letter in letters:
        done = run("dead", "show", letter.key, "--service", service, url=url)
        assert done.returncode == 0
        assert printable_lines(done.stdout)


def test_a_sender_cannot_write_into_other_columns(queues: Queues, url: str, service: str) -> None:
    method = "record" + " " * 16 + "admin" + " " * 9 + "57 bytes"
    queues.reject(json.dumps({"jsonrpc": "2.0", "method": method}).encode(), user_id="guest")
    queues.reject(b'{"jsonrpc": "2.0", "method": ""}')
    queues.reject(b'[{"method": "a"}, {"method": "b"}]', headers={'x-user: "admin"': 1})
    lines = printable_lines(run("dead", "list", "--service", service, url=url).stdout)
    rows = [line.split() for line in lines]
    assert [row[4:6] for row in rows] == [
        [method.replace(" ", r"\x20"), "guest"],
        ["-", "-"],
        ["a,b", "-"],
    ]
    assert {len(row) for row in rows} == {8}
    shown = run("dead", "show", rows[2][0], "--service", service, url=url).stdout
    assert 'header x-user:\\x20"admin": 1\n' in shown


def test_a_list_without_bodies_is_small(queues: Queues, url: str, service: str) -> None:
    queues.reject(b'{"jsonrpc": "2.0", "method": "%b"}' % (b"x" * 1_000_000), headers={"trace": "x" * 20_000})
    with DeadLetters(url, service) as dead:
        [letter] = dead.list(bodies=False)
        assert (letter.method, letter.headers, letter.body) == ("x" * 1000, {}, b"")
        [whole] = dead.list()
    assert (whole.method, whole.headers["trace"], whole.key) == ("x" * 1_000_000, "x" * 20_000, letter.key)
    assert "x" * 60 + "..." in run("dead", "list", "--service", service, url=url).stdout


def test_requeue_reaches_a_running_server(queues: Queues, url: str, service: str, tmp_path: Path) -> None:
    for body in (NOTIFICATION, CALL, NOTIFICATION.replace(b"1", b"2"), NOTIFICATION.replace(b"1", b"3")):
        queues.reject(body)
    with DeadLetters(url, service) as dead:
        first, call, second, _third = (letter.key for letter in dead.list())
    file = tmp_path / "record"
    queues.channel.queue_delete(f"{service}_req")
    with serving("tests.served:methods", "--service", service, url=url, env={"RECORD": str(file)}):
        done = run("dead", "requeue", first, second[:8], "--service", service, url=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "sent again: 2\n", "")
        wait_for(lambda: file.exists() and sorted(file.read_text().split()) == ["1", "2"])
        done = run("dead", "requeue", call, "--service", service, url=url)
        assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
        assert "it is a call" in printable_lines(done.stderr)[0]
        done = run("dead", "requeue", "--all", "--service", service, url=url)
        assert (done.returncode, done.stderr) == (0, "")
        assert printable_lines(done.stdout) == [
            "sent again: 1",
            "left, since they are calls, unchecked, or cannot be read: 1",
        ]
        wait_for(lambda: sorted(file.read_text().split()) == ["1", "2", "3"])
    assert queues.waiting("dead") == 1


def test_purge_asks_before_all_are_removed(queues: Queues, url: str, service: str) -> None:
    for number in range(4):
        queues.reject(b"%d" % number)
    with DeadLetters(url, service) as dead:
        key = dead.list()[0].key
    done = run("dead", "purge", key, "--service", service, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "removed: 1\n", "")
    for answer in (b"", b"n\n", b"\n"):
        done = run("dead", "purge", "--all", "--service", service, url=url, stdin=answer)
        assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
        assert f"Remove all dead letters of {service}?" in done.stderr
        assert "nothing was removed" in done.stderr
    assert queues.waiting("dead") == 3
    done = run("dead", "purge", "--all", "--service", service, url=url, stdin=b"y\n")
    assert (done.returncode, done.stdout) == (0, "removed: 3\n")
    queues.reject(CALL)
    done = run("dead", "purge", "--all", "--yes", "--service", service, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "removed: 1\n", "")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["show", "abc"], "hexadecimal"),
        (["show", "abcd"], "no dead letter"),
        (["purge", "abcd"], "no dead letter"),
        (["purge"], "--all"),
        (["requeue"], "--all"),
        (["requeue", "abcd", "--all"], "--all"),
        (["list", "--url", "memory://"], "RabbitMQ only"),
        (["list", "--url", "ftp://h"], "URL"),
    ],
)
def test_wrong_usage(queues: Queues, url: str, service: str, args: list[str], says: str) -> None:
    done = run("dead", *args, "--service", service, url=url)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    (line,) = printable_lines(done.stderr)
    assert says in line


def test_a_service_that_keeps_none_on_the_command_line(url: str, service: str) -> None:
    done = run("dead", "list", "--service", service, url=url)
    assert (done.returncode, done.stdout) == (TRANSPORT_ERROR, "")
    (line,) = printable_lines(done.stderr)
    assert "--dead-letters" in line


def test_every_option_is_explained() -> None:
    assert isinstance(main, click.Group)
    group = main.commands["dead"]
    assert isinstance(group, click.Group)
    assert sorted(group.commands) == ["list", "purge", "requeue", "show"]
    for name, command in group.commands.items():
        done = run("dead", name, "--help")
        assert f"jsonrpc-amqp dead {name} " in done.stdout
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help
                assert parameter.opts[0] in done.stdout
