"""By what a broker recognises a name of direct reply-to."""

from __future__ import annotations

import base64
from struct import pack

import pytest

from jsonrpc_amqp.amqp.direct_reply_to import PREFIX, issuer_of

GENUINE = f"{PREFIX}g1h2AA5yZXBseUAxNjYzNzU3MgAAAsIAAAAAawsm5Q==.87A0gIBL6qVHQvtOUbddAg=="


def name(node: bytes = b"reply@16637572", number: int = 706, serial: int = 0, created: int = 9, tag: int = 118) -> str:
    term = b"\x83X" + bytes([tag]) + pack(">H", len(node)) + node + pack(">III", number, serial, created)
    return f"{PREFIX}{base64.b64encode(term).decode()}.k"


def test_a_genuine_name_is_recognised_by_its_node() -> None:
    assert issuer_of(GENUINE) == "reply@16637572"


@pytest.mark.parametrize(
    "same", [name(), name(number=(1 << 28) - 1, serial=(1 << 13) - 1), name(created=(1 << 32) - 1), name() + ".more"]
)
def test_other_processes_and_keys_of_a_node_are_recognised_by_it(same: str) -> None:
    assert issuer_of(same) == issuer_of(GENUINE)


@pytest.mark.parametrize(
    "whole",
    [
        name(number=1 << 28),
        name(serial=1 << 13),
        name(tag=100),
        name().replace("=", ""),
        name().replace("==", "==="),
        name().replace("==.k", "===="),
        f"{PREFIX}g1h2AAAA.k",
        f"{PREFIX}g1h2.k",
        f"{PREFIX}.k",
        PREFIX,
        f"{PREFIX}\udcff.k",
        GENUINE.replace("5Q==", "5R=="),  # the same bytes, but not as base64 writes them
    ],
)
def test_what_a_node_does_not_stand_for_is_recognised_as_a_whole(whole: str) -> None:
    assert issuer_of(whole) == whole


def test_another_node_is_another_issuer() -> None:
    assert issuer_of(name(b"reply@1")) != issuer_of(name(b"reply@2"))
    assert issuer_of(name(b"")) == ""
