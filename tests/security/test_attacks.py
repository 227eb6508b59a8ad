"""Each attack succeeds without protection, and ends as listed with it."""

from __future__ import annotations

from typing import Any

import pytest

from jsonrpc_amqp import NOT_AUTHORISED, AccessRefused, Client, Server, ServerError

from ..abuse.neighbour import Neighbour
from ..tools import wait_for
from .attacks import ATTACKS, BROKER, NOT_SENT_AGAIN, SUCCEEDS, expiring, scene, send_again
from .http_attacks import HTTP_ATTACKS
from .node import ALICE, CERTIFIED, CLIENTS, DIRECT, DOTTED, OPEN, SERVER, SERVICE, TOPIC, Node

Seen = dict[str, dict[str, str]]


def play(node: Node, key: str, vhost: str, *, checked: bool, user: str = ALICE) -> str:
    """Run an attack; where there are permissions and checks, a neighbour calls all the time, and nothing hurts it."""
    attack = ATTACKS[key]
    if vhost != OPEN and attack.direct:
        vhost = DIRECT
    reply: Any = "direct" if attack.direct else "topic"
    with scene(node, vhost, checked=checked, user=user, reply=reply) as set_scene:
        if vhost == OPEN or not checked or attack.alone:
            return attack.run(set_scene)
        other = node.client(DOTTED if user == ALICE else ALICE, vhost, reply=reply, server_user=SERVER)
        patient = other.with_options(timeout=50)  # what is shown is that calls succeed, on a busy machine, too
        with other, Neighbour(lambda name, number: patient.call("visit", [name, number])) as neighbour:
            wait_for(lambda: neighbour.report().calls, 60)
            ended = attack.run(set_scene)
            calls = neighbour.report().calls
            wait_for(lambda: neighbour.report().calls > calls + 1, 60)
            neighbour.check()
            return ended


@pytest.mark.parametrize("key", ATTACKS)
def test_without_protection(node: Node, seen: Seen, key: str) -> None:
    seen[key]["without"] = play(node, key, OPEN, checked=False)
    assert seen[key]["without"] in (ATTACKS[key].by_nothing, *_of_later_versions(node, key))


@pytest.mark.parametrize("key", ATTACKS)
def test_permissions_alone(node: Node, seen: Seen, key: str) -> None:
    seen[key]["permissions"] = play(node, key, TOPIC, checked=False)
    # RabbitMQ 4 refuses more.
    assert seen[key]["permissions"] in (ATTACKS[key].by_permissions, BROKER)


@pytest.mark.parametrize("key", ATTACKS)
def test_checks_alone(node: Node, seen: Seen, key: str) -> None:
    seen[key]["checks"] = play(node, key, OPEN, checked=True)
    assert seen[key]["checks"] in (ATTACKS[key].by_checks, *_of_later_versions(node, key))


@pytest.mark.parametrize("user", [ALICE, DOTTED, CERTIFIED])
@pytest.mark.parametrize("key", ATTACKS)
def test_both(node: Node, seen: Seen, key: str, user: str) -> None:
    ended = play(node, key, TOPIC, checked=True, user=user)
    assert ended in (ATTACKS[key].by_both, BROKER)
    assert seen[key].setdefault("both", ended) == ended


def _of_later_versions(node: Node, key: str) -> list[str]:
    return [BROKER] if ATTACKS[key].before_4 and not node.broker.version.startswith("3.") else []


@pytest.mark.parametrize("key", [key for key, attack in ATTACKS.items() if attack.by_both == NOT_SENT_AGAIN])
def test_an_operator_is_not_misled_where_clients_use_direct_replies(node: Node, key: str) -> None:
    with scene(node, DIRECT, checked=True, user=ALICE, reply="direct") as here:
        assert ATTACKS[key].run(here) in (NOT_SENT_AGAIN, BROKER)


def test_an_operator_is_not_misled_by_what_came_to_the_queue_by_its_name(node: Node) -> None:
    attack = expiring({"x-death": "junk"}, "", f"{SERVICE}_req")
    with scene(node, OPEN, checked=True, user=ALICE) as here:
        assert send_again(here, attack) in (NOT_SENT_AGAIN, BROKER)


@pytest.mark.parametrize("key", HTTP_ATTACKS)
def test_over_http_it_succeeds_without_protection(http_seen: Seen, key: str) -> None:
    http_seen[key]["without"] = HTTP_ATTACKS[key].run(False)
    assert http_seen[key]["without"] == SUCCEEDS


@pytest.mark.parametrize("key", HTTP_ATTACKS)
def test_over_http_with_protection(http_seen: Seen, key: str) -> None:
    http_seen[key]["with"] = HTTP_ATTACKS[key].run(True)
    assert http_seen[key]["with"] == HTTP_ATTACKS[key].ends


@pytest.mark.parametrize("reply", [TOPIC, DIRECT])
@pytest.mark.parametrize("user", CLIENTS)
def test_what_is_printed_is_enough(node: Node, user: str, reply: Any) -> None:
    with scene(node, reply, checked=True, user=user, reply=reply) as here:
        assert here.victim.call("echo", ["hello"]) == "hello"
        here.victim.notify("echo", ["hello"])
        with here.victim.batch() as batch:
            futures = [batch.call("echo", [number]) for number in range(3)]
        assert [future.result() for future in futures] == [0, 1, 2]
        assert here.server.stats()["refused"] == here.victim.stats()["rejected_replies"] == 0


def test_a_name_with_a_dot_is_no_pattern(node: Node) -> None:
    """``{username}`` would permit this: ``a.b`` in a regular expression matches ``axb``."""
    with scene(node, TOPIC, checked=True, user=DOTTED) as here:
        other = node.client(DOTTED, TOPIC)
        other._requests._addresses._user = "axb"
        with pytest.raises(AccessRefused, match="axb"):
            other.start()
        other.close()
        assert here.server.stats()["received"] == 0


def test_a_certificate_without_its_name_is_unknown(node: Node) -> None:
    """The user is not in the URL, so the client needs ``user=``."""
    with (
        Server(node.url(SERVER), "other", methods={"echo": lambda text: text}, verify_user=True) as server,
        Client(node.url(CERTIFIED), "other", timeout=5) as client,
    ):
        with pytest.raises(ServerError) as caught:
            client.call("echo", ["x"])
        assert caught.value.code == NOT_AUTHORISED
        assert server.stats()["refused"] == 1
