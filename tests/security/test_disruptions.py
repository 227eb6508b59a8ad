"""What Eve does so that calls of others fail does so without protection, and with it ends as the page says."""

from __future__ import annotations

import pytest

from .attacks import BROKER, SUCCEEDS
from .disruptions import DISRUPTIONS, NOT_POSSIBLE, WAYS, disrupt, stage, unprotected
from .node import TOPIC, Node

Seen = dict[str, dict[str, str]]


@pytest.mark.parametrize("key", DISRUPTIONS)
def test_it_succeeds_without_protection(node: Node, disrupted: Seen, key: str) -> None:
    with unprotected(), stage(node, TOPIC) as here:
        disrupted[key]["without"] = disrupt(here, DISRUPTIONS[key].run)
    if node.broker.version.startswith("3."):  # RabbitMQ 4 checks CC
        assert disrupted[key]["without"] == SUCCEEDS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", DISRUPTIONS)
def test_it_ends_as_listed(node: Node, disrupted: Seen, key: str, way: str) -> None:
    listed = DISRUPTIONS[key].ends[WAYS.index(way)]
    disrupted[key][way] = listed
    if listed == NOT_POSSIBLE:
        return
    with stage(node, way) as here:
        disrupted[key][way] = disrupt(here, DISRUPTIONS[key].run)
    assert disrupted[key][way] in (listed, BROKER)
