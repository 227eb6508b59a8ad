"""
The wire contract in code: names, routing keys, qids, message properties, deadlines (pure).

docs/protocol.md says it in words. The clock and the tokens come in as arguments, so every rule can be tested in
microseconds.
"""

from __future__ import annotations

import base64
import re
import secrets
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from re import Pattern
from typing import Any, NamedTuple
from urllib.parse import quote

from .errors import CallTimeout, InvalidName
from .transport.base import DIRECT_REPLY_TO, Delivery, Filled, Publish, Template

__all__ = ["DIRECT_REPLY_TO"]

DEFAULT_EXCHANGE = "jsonrpc"
# Stands in the routing key for every id that is not one plain word, and for a batch.
NO_QID = "_"
# AMQP 0-9-1: a routing key is a short string.
MAX_KEY_BYTES = 255
MAX_SERVICE_BYTES = 80
MAX_USER_BYTES = 64
MAX_QID_BYTES = 64
MAX_EXPIRATION_MS = 4294967295
TOKEN_LENGTH = 12

_TOKEN_LETTERS = string.ascii_lowercase + string.digits
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_QID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_QID_BYTES}}}")
# Service ``a.request`` would read the requests of service ``a``; ``control`` is kept for what may come.
_RESERVED_WORDS = {"request", "response", "control"}
_TOO_LONG_INTEGER = 10**MAX_QID_BYTES
# A URL of another shape may have a piece of a password anywhere: one with an unescaped "/" or "?" in it, for example.
_URL = re.compile(
    r"(?P<scheme>[a-z]+://)"
    r"(?:(?P<user>[^:@/?#]*)(?::[^/?#]*)?@)?"
    r"(?P<place>(?:\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]\s]*)(?::[0-9]{1,5})?(?:/[^@?#]*)?)"
    r"(?:\?[^@#]*)?"
)


# -- names ------------------------------------------------------------------------------------------------


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
    Answers are not paired by it; it is for people, logs and simple clients.
    """
    if type(request_id) is int:
        # Compared before it is written: Python refuses to write integers of very many digits.
        request_id = str(request_id) if abs(request_id) < _TOO_LONG_INTEGER else NO_QID
    return request_id if isinstance(request_id, str) and _QID.fullmatch(request_id) else NO_QID


@dataclass(frozen=True, slots=True)
class Address:
    """
    Whom to call, and where the answer is awaited.

    Attributes:
        client: See ``client_word``.
        reply_to: None for an answer over the exchange; else sent as ``reply_to``.
        user: Sent as ``user_id``, which the broker verifies; None sends none.
        answer_key: What the routing keys of answers over the exchange begin with; a qid follows.
        template: Of its calls; what follows in their routing keys is given by ``rest_of_key``.

    Raises:
        InvalidName: The service's name is illegal, or keys would not fit into 255 bytes.
    """

    exchange: str
    service: str
    client: str
    reply_to: str | None = None
    user: str | None = None
    notification_key: str = field(init=False)
    answer_key: str = field(init=False)
    template: Template = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_service(self.service)
        object.__setattr__(self, "notification_key", f"{self.service}.request.{self.client}")
        object.__setattr__(self, "answer_key", f"{self.service}.response.{self.client}.")
        object.__setattr__(self, "template", _template_of_calls(self, f"{self.notification_key}."))
        longest = len(self.service) + len(".response.") + len(self.client) + 1 + MAX_QID_BYTES
        if longest > MAX_KEY_BYTES:
            raise InvalidName(
                f"service {self.service!r} and client {self.client!r} make routing keys of up to {longest} bytes; AMQP "
                f"allows {MAX_KEY_BYTES}"
            )

    @staticmethod
    def rest_of_key(qid: str) -> str:
        """Give what follows on the template's in the routing key of a call."""
        return qid


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """
    A queue that is called by its name, through the default exchange, as any AMQP RPC client does.

    Attributes:
        queue: Its name, and the routing key of each request.
        client, reply_to, user, template: As for ``Address``.

    Raises:
        InvalidName: It has no name, or one over 255 bytes.
    """

    queue: str
    client: str
    reply_to: str | None
    user: str | None = None
    template: Template = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", _template_of_calls(self, self.queue))
        if not isinstance(self.queue, str) or not self.queue or not _fits(self.queue):
            raise InvalidName(f"a queue's name is a string of 1 to {MAX_KEY_BYTES} bytes, not {self.queue!r:.80}")

    @property
    def service(self) -> str:
        """What errors call it."""
        return self.queue

    @property
    def exchange(self) -> str:
        """The default exchange, which knows each queue by its name."""
        return ""

    @property
    def notification_key(self) -> str:
        """The routing key of a notification."""
        return self.queue

    @staticmethod
    def rest_of_key(_qid: str) -> str:
        """Give what follows in the routing key of a call: nothing."""
        return ""


def _template_of_calls(address: Address | QueueAddress, key: str) -> Template:
    return Template(address.exchange, key, reply_to=address.reply_to, user_id=address.user, tells_timeout=True)


# -- deadlines: seconds inside, whole milliseconds on the wire ------------------------------------------------


def milliseconds(seconds: float) -> int:
    """Give a time to live as AMQP counts it; at least 1, as 0 would mean "drop at once", and no more than it takes."""
    # Bounded before it is rounded: infinity has no integer.
    return ceil(min(max(seconds * 1000, 1), MAX_EXPIRATION_MS))


def deadline_of(delivery: Delivery, received: float) -> float | None:
    """
    Give when the caller of a request gives up, in monotonic seconds; None where it did not say.

    Args:
        delivery: The request.
        received: When it arrived here, in monotonic seconds. The clocks of two hosts are never compared.
    """
    return None if delivery.timeout_ms is None else received + delivery.timeout_ms / 1000


# -- requests -----------------------------------------------------------------------------------------------


def call(
    address: Address | QueueAddress,
    body: bytes,
    *,
    number: str,
    qid: str,
    deadline: float | None,
    now: float,
    persistent: bool = False,
    headers: Mapping[str, Any] | None = None,
) -> Publish:
    """
    Describe the publish that carries one call, or a batch with a call in it.

    Args:
        address: Whom to call and where the answer is awaited.
        body: One JSON-RPC 2.0 object or batch, UTF-8.
        number: Numbers the calls of this client; answers are paired by it (``correlation_id``).
        qid: See ``qid_of``.
        deadline: When the caller gives up, in monotonic seconds; None: never.
        now: The current time, in monotonic seconds.
        persistent: Have the broker keep it on disk.
        headers: Further AMQP headers.

    Raises:
        CallTimeout: The deadline has passed; ``may_have_run`` is false.
    """
    ttl = time_to_live(address, deadline, now)
    message = Filled(address.template, address.rest_of_key(qid), number, ttl, body).message()
    message.persistent, message.headers = persistent, headers
    return message


def time_to_live(address: Address | QueueAddress, deadline: float | None, now: float) -> int | None:
    """Give how long a call may wait in the queue, in whole milliseconds; for arguments and errors see ``call``."""
    if deadline is None:
        return None
    if deadline <= now:
        raise CallTimeout(f"no time was left to call {address.service!r}; nothing was sent", may_have_run=False)
    return milliseconds(deadline - now)


def notification(
    address: Address | QueueAddress,
    body: bytes,
    *,
    message_id: str,
    persistent: bool = True,
    headers: Mapping[str, Any] | None = None,
) -> Publish:
    """Describe the publish that carries a notification, or a batch of only those: it waits in the queue for ever."""
    return Publish(
        address.exchange,
        address.notification_key,
        body,
        persistent=persistent,
        message_id=message_id,
        user_id=address.user,
        headers=headers,
    )


# -- answers ------------------------------------------------------------------------------------------------


class Route(NamedTuple):
    """Where an answer goes."""

    exchange: str
    routing_key: str
    mandatory: bool


def reply_route(
    delivery: Delivery,
    *,
    service: str,
    exchange: str,
    request_queues: Collection[str] = (),
    allowed: Callable[[str], bool] | None = None,
) -> Route | None:
    """
    Say where the answer to a request goes; None where nobody can be answered.

    With ``reply_to`` it goes there, through the default exchange; it must not be a queue of requests or of dead
    letters, nor ``amq.*`` other than what brokers make for replies. Without, the request's own key is mirrored, if it
    came through the exchange.

    Args:
        delivery: The request.
        service: The service that received it.
        exchange: Its topic exchange.
        request_queues: Further names of queues that requests are read from.
        allowed: Narrows ``reply_to`` further.
    """
    reply_to = delivery.reply_to
    if reply_to is not None:
        if not _may_reply_to(reply_to, request_queues) or not (allowed is None or allowed(reply_to)):
            return None
        # A mandatory publish to a live direct reply-to is delivered, and returned as well.
        return Route("", reply_to, not reply_to.startswith(f"{DIRECT_REPLY_TO}."))
    prefix = f"{service}.request."
    if delivery.exchange != exchange or not delivery.routing_key.startswith(prefix):
        return None
    # By position: a user or a qid may be called "request".
    key = f"{service}.response.{delivery.routing_key[len(prefix) :]}"
    # It is one byte longer than the request's, which may have been as long as keys get.
    return Route(exchange, key, True) if _fits(key) else None


def _fits(name: str) -> bool:
    # No character has more than four bytes.
    return 4 * len(name) <= MAX_KEY_BYTES or len(name.encode("utf-8", "surrogateescape")) <= MAX_KEY_BYTES


def _may_reply_to(queue: str, request_queues: Collection[str]) -> bool:
    if not queue or not _fits(queue):
        return False
    # Nor dead letters: what lies there may be requeued, under the name of whoever does it.
    if queue in request_queues or queue.endswith(("_req", "_dead")):
        return False
    if queue.startswith(f"{DIRECT_REPLY_TO}."):
        return _is_direct_reply_to(queue)
    return not queue.startswith("amq.") or queue.startswith("amq.gen-")


@lru_cache(1024)  # a client has one for all of its calls
def _is_direct_reply_to(queue: str) -> bool:
    """
    Tell whether this is a name that RabbitMQ made: base64 of an Erlang process identifier, a dot, and a key.

    RabbitMQ takes it apart, and closes the whole connection where it cannot.
    """
    encoded = queue.removeprefix(f"{DIRECT_REPLY_TO}.").partition(".")[0]
    try:
        term = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    return _is_process_identifier(term)


def _is_process_identifier(term: bytes) -> bool:
    # https://www.erlang.org/doc/apps/erts/erl_ext_dist: version 131; NEW_PID_EXT (88) or PID_EXT (103); the node's
    # name, an atom (115 and 119 with one octet of length, 100 and 118 with two); 12 or 9 octets of numbers.
    head = term[:5].ljust(5, b"\0")
    if head[0] != 131 or head[1] not in (88, 103) or head[2] not in (100, 115, 118, 119):
        return False
    name = 1 + head[3] if head[2] in (115, 119) else 2 + (head[3] << 8 | head[4])
    return len(term) == 3 + name + (12 if head[1] == 88 else 9)


def answer(
    delivery: Delivery,
    body: bytes,
    *,
    route: Route,
    now: float,
    deadline: float | None,
    user: str | None = None,
) -> Publish:
    """
    Describe the publish that carries an answer: transient, and dropped when nobody waits for it any more.

    Args:
        delivery: The request; its ``correlation_id`` is echoed.
        body: The JSON-RPC response, or array of them.
        route: See ``reply_route``.
        now: The current time, in monotonic seconds.
        deadline: See ``deadline_of``.
        user: The server's, sent as ``user_id``; None sends none.
    """
    return Publish(
        route.exchange,
        route.routing_key,
        body,
        mandatory=route.mandatory,
        correlation_id=delivery.correlation_id,
        expiration_ms=time_of_answer(deadline, now),
        user_id=user,
    )


def time_of_answer(deadline: float | None, now: float) -> int | None:
    """Give how long an answer may wait for its caller, in whole milliseconds; see ``answer``."""
    return None if deadline is None else milliseconds(deadline - now)


def reply_to_filter(allowed: str | Pattern[str] | Callable[[str], bool] | None) -> Callable[[str], bool] | None:
    """Make a callable of ``reply_to_allowed=``: a regular expression must match the whole name."""
    if allowed is None or callable(allowed):
        return allowed
    pattern = re.compile(allowed)
    return lambda name: pattern.fullmatch(name) is not None


# -- text for people ------------------------------------------------------------------------------------------


def redact(url: str) -> str:
    """Give a URL, or several joined by ``;``, without passwords and queries; ``***`` alone where one is malformed."""
    shown = []
    for part in url.split(";"):
        match = _URL.fullmatch(part.strip())
        if match is None:
            return "***"
        scheme, user, place = match.group("scheme", "user", "place")
        shown.append(f"{scheme}{place}" if user is None else f"{scheme}{user}:***@{place}")
    return ";".join(shown)


def printable(text: str, limit: int = 200) -> str:
    """Give text from the wire as one harmless quoted line: escapes, and at most about ``limit`` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return ascii(cut)
