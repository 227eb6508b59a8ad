"""
Ids of our own for the calls of a body, while another server has it (pure).

Callers choose their ids, and most choose 1: a response to one of them would pass for the response to another. All else
stays as it is, byte for byte, but for white space around the members of a request, and members that occur twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .inspection import Requested
from .text import Raw, begins, dumps, join, loads, split_array, split_object

BITS = 46
"""Of the number to begin with: servers whose numbers have 14 digits would give back a larger one rounded."""
_NUMBER, _STRING = "-0123456789", '"'
_SPACE = b" \t\r\n"


class Labelled(NamedTuple):
    """
    A body with ids of our own.

    Attributes:
        body: What to send.
        requested: What it requests.
        originals: The ids of the caller, as texts, by ours.
    """

    body: bytes
    requested: Requested
    originals: Mapping[Any, Raw]


def label(body: bytes, requested: Requested, start: int) -> Labelled:
    """
    Give each call of a body an id of our own, of the same type. A call without a usable id stays as it is.

    Args:
        body: A request or a batch.
        requested: What it requests.
        start: A number below ``2 ** BITS`` that cannot be guessed.
    """
    ids = [None if id is None else _like(id, start + place) for place, id in enumerate(requested.ids)]
    usable = iter([id for id in ids if id is not None])
    originals: dict[Any, Raw] = {}

    def labelled(text: Raw) -> Raw:
        members = split_object(text) if begins(text, "{") else {}
        original = members.get("id")
        if original is None or not begins(original, _NUMBER + _STRING):
            return text
        own = next(usable)
        originals[own] = original
        return join({**members, "id": Raw(dumps(own))})

    if not any(id is not None for id in ids):
        return Labelled(body, requested, originals)
    whole = join([*map(labelled, split_array(body))]) if requested.is_batch else labelled(Raw(body.strip(_SPACE)))
    return Labelled(bytes(whole), requested._replace(ids=tuple(ids)), originals)


def restore(labelled: Labelled, reply: bytes) -> bytes:
    """Return a valid reply to a labelled body with the ids of the caller; what has no id of ours stays as it is."""
    originals = labelled.originals

    def restored(text: Raw) -> Raw:
        members = split_object(text) if begins(text, "{") else {}
        own = members.get("id")
        original = None if own is None else originals.get(_key(own))
        return text if original is None else join({**members, "id": original})

    if not originals:
        return reply
    reply = reply.strip(_SPACE)
    if begins(reply, "["):
        return bytes(join([*map(restored, split_array(reply))]))
    return bytes(restored(Raw(reply)))


def _like(id: Any, number: int) -> Any:
    return str(number) if isinstance(id, str) else number


def _key(text: Raw) -> Any:
    return loads(bytes(text)) if begins(text, _NUMBER + _STRING) else None
