"""Which messages a client accepts as replies to its calls."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO
from jsonrpc_amqp.wire.reply_checks import ReplyChecks

from .tools import TOKEN, dead_letter_headers, delivery

MINE = f"S.response.alice-{TOKEN}.7"

DIRECT = f"{DIRECT_REPLY_TO}.g1h2AA5yZXBseUAxNDk5NTU3MgAADAUAAAAAawYyTg==.k"


@pytest.mark.parametrize(
    ("exchange", "wanted", "got_exchange", "got_key", "user", "headers", "differs"),
    [
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", None, False),
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv2", None, False),
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", dead_letter_headers(b"\x05trace"), False),
        ("jsonrpc", MINE, "jsonrpc", MINE[:-1] + "8", "srv", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE + ".8", "srv", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE.replace("response", "request"), "srv", None, True),
        ("jsonrpc", MINE, "", MINE, "srv", None, True),
        ("jsonrpc", MINE, "eves", MINE, "srv", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE, "eve", None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE, None, None, True),
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", dead_letter_headers(), True),
        # A table that cannot be read, and the header in it.
        ("jsonrpc", MINE, "jsonrpc", MINE, "srv", b"\xff\xff\xff\xff\x01x?\x07x-deathA", True),
        ("", "amq.gen-x", "", "amq.gen-x", "srv", None, False),
        ("", "amq.gen-x", "jsonrpc", "amq.gen-x", "srv", None, True),
        ("", "amq.gen-x", "", "amq.gen-y", "srv", None, True),
        ("", DIRECT_REPLY_TO, "", DIRECT, "srv", None, False),
        ("", DIRECT_REPLY_TO, "", DIRECT, "eve", None, True),
        ("", DIRECT_REPLY_TO, "jsonrpc", DIRECT, "srv", None, True),
    ],
)
def test_replies(
    exchange: str,
    wanted: str,
    got_exchange: str,
    got_key: str,
    user: str | None,
    headers: bytes | None,
    differs: bool,
) -> None:
    got = delivery(got_key, got_exchange, user_id=user, raw_headers=headers)
    mismatch = ReplyChecks(exchange, frozenset(["srv", "srv2"])).mismatch(got, wanted)
    assert (mismatch is not None) is differs
    assert mismatch is None or mismatch.isprintable()
    if user in (None, "eve"):
        assert ReplyChecks(exchange, None).mismatch(got, wanted) is None or got_exchange != exchange
