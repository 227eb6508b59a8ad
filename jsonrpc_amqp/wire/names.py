"""Names on the wire: services, queues, routing keys, qids (pure). docs/protocol.md states the rules in words."""

from __future__ import annotations

import re
import secrets
import string
from urllib.parse import quote

from ..errors import InvalidName
from .display import printable

DEFAULT_EXCHANGE = "jsonrpc"
# Stands in the routing key for every id that is not one plain word, and for a batch.
NO_QID = "_"
# AMQP 0-9-1: a routing key is a short string.
MAX_KEY_BYTES = 255

MAX_SERVICE_BYTES = 80

MAX_USER_BYTES = 64

MAX_QID_BYTES = 64

TOKEN_LENGTH = 12

_TOKEN_LETTERS = string.ascii_lowercase + string.digits

_WORD = re.compile(r"[A-Za-z0-9_-]+")

_QID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_QID_BYTES}}}")
# Service ``a.request`` would read the requests of service ``a``; ``control`` is kept for what may come.
_RESERVED_WORDS = {"request", "response", "control"}

_TOO_LONG_INTEGER = 10**MAX_QID_BYTES


def check_service(name: str) -> str:
    """
    Give a service's name back if it is legal: words of ``[A-Za-z0-9_-]`` joined by dots, at most 80 bytes.

    Raises:
        InvalidName: The message names the rule that it breaks.
    """
    if not isinstance(name, str) or not name:
        # Of what it is the type alone: it may be a URL, with a password.
        raise InvalidName(f"a service name is a non-empty string, not {type(name).__name__ if name else repr(name)}")
    refuse_url(name)
    words = name.split(".")
    for word in words:
        if not _WORD.fullmatch(word):
            raise InvalidName(
                f"service name {printable(name)}: each word between the dots has one or more of A-Z, a-z, 0-9, '_' and "
                f"'-', unlike {printable(word)}"
            )
        if word in _RESERVED_WORDS:
            raise InvalidName(f"service name {name!r}: no word may be {word!r}, which routing keys use themselves")
    if words[0] == "amq":
        raise InvalidName(f"service name {name!r}: the first word may not be 'amq', which AMQP reserves")
    if len(name) > MAX_SERVICE_BYTES:
        raise InvalidName(f"service name {name!r} has {len(name)} bytes; at most {MAX_SERVICE_BYTES} are allowed")
    return name


def refuse_url(name: object) -> None:
    """
    Refuse a broker's URL where a service's name belongs.

    Raises:
        InvalidName: It is one; nothing of it is shown.
    """
    if isinstance(name, str) and "://" in name:
        raise InvalidName(
            "this is a broker's URL; the service's name belongs here (of the two arguments the URL comes first)"
        )


def request_queue(service: str) -> str:
    """Give the name of the durable queue that all servers of a service share."""
    return f"{service}_req"


def dead_letter_queue(service: str) -> str:
    """Give the name of the queue, and of the exchange before it, that keep what no server could handle."""
    return f"{service}_dead"


def request_binding(service: str) -> str:
    """Give the key that binds it: calls, notifications, and a bare ``S.request``."""
    return f"{service}.request.#"


def reply_binding(service: str, client: str) -> str:
    """Give the key that binds a reply queue; ``client``: see ``client_word``."""
    return f"{service}.response.{client}.#"


def client_word(user: str | None, token: str) -> str:
    """
    Give the word of a routing key that tells clients apart: ``<user>-<token>``; a user that is not known is ``_``.

    Raises:
        InvalidName: See ``user_word``.
    """
    return f"{user_word(user or NO_QID)}-{token}"


def user_word(user: str) -> str:
    """
    Give a user's name in percent-encoding, dots too, so that it is a part of one word.

    Raises:
        InvalidName: The encoded name has more than 64 bytes, or the name has no form in UTF-8.
    """
    try:
        encoded = quote(user, safe="-_~").replace(".", "%2E")
    except UnicodeEncodeError as exc:
        raise InvalidName(f"the user name {printable(user)} has no form in UTF-8") from exc
    if len(encoded) > MAX_USER_BYTES:
        raise InvalidName(
            f"the user name {printable(user)} has {len(encoded)} bytes in percent-encoding; a routing key has "
            f"room for {MAX_USER_BYTES}: take a shorter name, or log in by the common name of a certificate "
            "(ssl_cert_login_from = common_name)"
        )
    return encoded


def new_token() -> str:
    """Give twelve random characters: ids alone collide among clients, and a token is fresh for every connection."""
    return "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(TOKEN_LENGTH))


def qid_of(request_id: object) -> str:
    """
    Give the word that stands for a JSON-RPC id in routing keys.

    It is the id itself where that is an integer or a string that is one plain word of 1 to 64 bytes, else ``_``.
    ReplyChecks are not paired by it; it is for people, logs and simple clients.
    """
    if type(request_id) is int:
        # Compared before it is written: Python refuses to write integers of very many digits.
        request_id = str(request_id) if abs(request_id) < _TOO_LONG_INTEGER else NO_QID
    return request_id if isinstance(request_id, str) and _QID.fullmatch(request_id) else NO_QID


def fits_in_key(name: str) -> bool:
    # No character has more than four bytes.
    return 4 * len(name) <= MAX_KEY_BYTES or len(name.encode("utf-8", "surrogateescape")) <= MAX_KEY_BYTES
