"""Names on the wire: services, queues, routing keys, qids (pure). docs/protocol.md states the rules in words."""

from __future__ import annotations

import re
import secrets
import string
from urllib.parse import quote

from ..errors import InvalidName
from .display import printable

DEFAULT_EXCHANGE = "jsonrpc"
# In a routing key: the qid of a batch, and of an id that is not one plain word; and the name of an unknown user.
NO_QID = "_"

# AMQP 0-9-1: a routing key is a short string.
MAX_KEY_BYTES = 255
# With these three, the words between them and a token, every routing key fits into MAX_KEY_BYTES.
MAX_SERVICE_BYTES = 80
MAX_USER_BYTES = 64
MAX_QID_BYTES = 64

TOKEN_LENGTH = 12
_TOKEN_LETTERS = string.ascii_lowercase + string.digits

_WORD = re.compile(r"[A-Za-z0-9_-]+")
_QID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_QID_BYTES}}}")
# The queue of a service ``a.request`` would get the requests of service ``a``; ``control`` is reserved for the future.
_RESERVED_WORDS = {"request", "response", "control"}
_TOO_LONG_INTEGER = 10**MAX_QID_BYTES


# -- services -------------------------------------------------------------------------------------------------


def check_service(name: str) -> str:
    """
    Return a service's name if it is legal: words of ``[A-Za-z0-9_-]`` joined by dots, at most 80 bytes.

    Raises:
        InvalidName: The message names the rule that it breaks.
    """
    if not isinstance(name, str) or not name:
        # Only its type is shown: the value may be a URL, with a password.
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
    Raise if a broker's URL was passed where a service's name belongs.

    Raises:
        InvalidName: The name is a URL; the message shows nothing of it.
    """
    if isinstance(name, str) and "://" in name:
        raise InvalidName(
            "this is a broker's URL; the service's name belongs here (of the two arguments the URL comes first)"
        )


def request_queue(service: str) -> str:
    """Return the name of the durable queue that all servers of a service share."""
    return f"{service}_req"


def dead_letter_queue(service: str) -> str:
    """Return the name of the dead-letter queue of a service, and of the exchange in front of it."""
    return f"{service}_dead"


def request_binding(service: str) -> str:
    """Return the binding key of the request queue: calls, notifications, and a bare ``S.request``."""
    return f"{service}.request.#"


def reply_binding(service: str, client: str) -> str:
    """Return the binding key of a client's reply queue; for ``client`` see ``client_word``."""

    # -- clients --------------------------------------------------------------------------------------------------
    return f"{service}.response.{client}.#"


def client_word(user: str | None, token: str) -> str:
    """
    Return the word that identifies a client in routing keys: ``<user>-<token>``, with ``_`` for an unknown user.

    Raises:
        InvalidName: See ``user_word``.
    """
    return f"{user_word(user or NO_QID)}-{token}"


def user_word(user: str) -> str:
    """
    Return a user's name in percent-encoding, dots included, so that it can be a part of one word.

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
    """Return twelve random characters that tell one connection of a user from another."""
    return "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(TOKEN_LENGTH))


# -- requests -------------------------------------------------------------------------------------------------


def qid_of(request_id: object) -> str:
    """
    Return the word that stands for a JSON-RPC id in routing keys.

    It is the id itself if that is an integer or a string that is one plain word of 1 to 64 bytes, otherwise ``_``.
    Replies are not paired by it; it is for people, logs and simple clients.
    """
    if type(request_id) is int:
        # Compared before it is converted: Python refuses to convert integers of more than 4300 digits.
        request_id = str(request_id) if abs(request_id) < _TOO_LONG_INTEGER else NO_QID
    return request_id if isinstance(request_id, str) and _QID.fullmatch(request_id) else NO_QID


def fits_in_key(name: str) -> bool:
    """Whether a string, which AMQP sends as UTF-8, is short enough for a routing key or a queue's name."""
    # No character takes more than four bytes, so most names need no encoding.
    return 4 * len(name) <= MAX_KEY_BYTES or len(name.encode("utf-8", "surrogateescape")) <= MAX_KEY_BYTES
