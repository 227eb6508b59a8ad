"""Each attack succeeds without protection, and ends as listed with it."""

from __future__ import annotations

from typing import Any

import pytest

from jsonrpc_amqp import NOT_AUTHORISED, AccessRefused, Client, Server, ServerError

from .attacks import ATTACKS, BROKER, scene
from .node import ALICE, CERTIFIED, CLIENTS, DIRECT, DOTTED, OPEN, SERVER, TOPIC, Node

Seen = dict[str, dict[str, str]]


def play(node: Node, key: str, vhost: str, *, checked: bool, user: str = ALICE) -> str:
    attack = ATTACKS[key]
    if vhost != OPEN and attack.direct:
        vhost = DIRECT
    with scene(node, vhost, checked=checked, user=user, reply="direct" if attack.direct else "topic") as set_scene:
        return attack.run(set_scene)


@pytest.mark.parametrize("key", ATTACKS)
def test_without_protection(node: Node, seen: Seen, key: str) -> None:
    seen[key]["without"] = play(node, key, OPEN, checked=False)
    assert seen[key]["without"] == ATTACKS[key].by_nothing


@pytest.mark.parametrize("key", ATTACKS)
def test_permissions_alone(node: Node, seen: Seen, key: str) -> None:
    seen[key]["permissions"] = play(node, key, TOPIC, checked=False)
    # RabbitMQ 4 refuses more.
    assert seen[key]["permissions"] in (ATTACKS[key].by_permissions, BROKER)


@pytest.mark.parametrize("key", ATTACKS)
def test_checks_alone(node: Node, seen: Seen, key: str) -> None:
    seen[key]["checks"] = play(node, key, OPEN, checked=True)
    assert seen[key]["checks"] == ATTACKS[key].by_checks


@pytest.mark.parametrize("user", [ALICE, DOTTED, CERTIFIED])
@pytest.mark.parametrize("key", ATTACKS)
def test_both(node: Node, seen: Seen, key: str, user: str) -> None:
    ended = play(node, key, TOPIC, checked=True, user=user)
    assert ended in (ATTACKS[key].by_both, BROKER)
    assert seen[key].setdefault("both", ended) == ended


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
