"""Bodies for the tests of dead letters."""

from __future__ import annotations

from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.operator.letter import digest_of

JUNK = [
    (b"", None),
    (b"\xff\xfe\x00", None),
    (b"[1, 2", None),
    (b"[" * 100_000, None),
    (b"5", None),
    (b'"text"', None),
    (b"[]", None),
    (b'[1, {"method": 5}, {"method": ["x"]}]', None),
    (b'{"method": {"a": 1}, "id": 1}', None),
    (b'{"method": "\\ud800"}', None),
    (b'{"method": "a", "id": 1}', "a"),
    (b'[{"jsonrpc": "2.0", "method": "a"}, {"jsonrpc": "2.0", "method": "b", "id": [1]}, 3]', "a, b"),
]
"""Bodies that are no notifications, and their methods."""


def two_that_begin_alike(routing_key: str, *, checked: bool) -> tuple[bytes, bytes]:
    """Return two bodies of which the keys of letters have their first four digits in common."""
    seen: dict[str, bytes] = {}
    for number in range(100_000):
        body = b"%d" % number
        other = seen.setdefault(digest_of(Delivery(1, 1, False, "", routing_key, body), body, checked)[:4], body)
        if other != body:
            return other, body
    raise AssertionError("the keys are no digests")
