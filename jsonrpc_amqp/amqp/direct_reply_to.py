"""
Which names of direct reply-to a broker takes (pure).

RabbitMQ gives each client a name: base64 of an Erlang process identifier, a dot and a key. Up to 4.1 it ends the whole
connection that publishes to a name which it cannot resolve: one of a node that is not in the cluster, or with numbers
that no process has. Only the broker knows its nodes, so a name is safe only if its node is known from the broker.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from struct import unpack_from

from .base import DIRECT_REPLY_TO

PREFIX = f"{DIRECT_REPLY_TO}."
# https://www.erlang.org/doc/apps/erts/erl_ext_dist: version 131, NEW_PID_EXT, and the node's name as ATOM_UTF8_EXT.
_PROCESS = b"\x83Xv"
# What every Erlang of RabbitMQ 3.10 and later takes; larger numbers are rare, and not all of them take these.
_MOST_ID, _MOST_SERIAL = 1 << 28, 1 << 13


def issuer_of(name: str) -> str:
    """
    Return by what a broker recognises a name of direct reply-to: its node, or the whole name where that is not enough.

    If a broker takes one name, it takes each with the same issuer.
    """
    encoded = name.removeprefix(PREFIX).partition(".")[0]
    try:
        term = b64decode(encoded, validate=True)
    except ValueError:
        return name
    if b64encode(term).decode() != encoded or term[:3] != _PROCESS or len(term) < 5:
        return name
    end = 5 + (term[3] << 8 | term[4])
    if len(term) != end + 12:
        return name
    number, serial = unpack_from(">II", term, end)
    return term[5:end].decode("latin-1") if number < _MOST_ID and serial < _MOST_SERIAL else name
