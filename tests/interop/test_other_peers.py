"""Peers in Node and in C."""

from __future__ import annotations

import pytest

from .asking import check_batch, check_many, check_odd, check_plain


@pytest.mark.peer("rabbitmq-client", works="results, errors, batches, ids of every type, invalid JSON")
def test_rabbitmq_client(node_peer: list[str], url: str, conformance: str) -> None:
    command = [*node_peer, url, conformance, "direct"]
    check_plain(command)
    check_batch(command)
    check_odd(command)


@pytest.mark.peer("rabbitmq-client", works="with its own JSON")
def test_rabbitmq_client_with_its_own_json(node_peer: list[str], url: str, conformance: str) -> None:
    check_plain([*node_peer, url, conformance, "json"])


@pytest.mark.peer("rabbitmq-client", works="1,000 at once")
def test_rabbitmq_client_many_at_once(node_peer: list[str], url: str, conformance: str) -> None:
    check_many([*node_peer, url, conformance, "direct", "--concurrent"], 1000)


@pytest.mark.peer("amqp-tools", works="results, errors, batches, ids of every type, invalid JSON")
def test_amqp_tools(amqp_tools: str, url: str, conformance: str) -> None:
    command = [amqp_tools, url, conformance, "queue"]
    check_plain(command)
    check_batch(command)
    check_odd(command)
