"""
Dead letters: the requests of a service that no server could handle. For the operator, who looks and decides.

    with DeadLetters("amqp://", "example") as dead:
        for letter in dead.list():
            print(letter.key, letter.died, letter.reason, letter.method)
        dead.requeue("3fa94c01d2be")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..amqp.transport import MEMORY
from ..client.client import Client
from ..errors import JsonRpcAmqpError, NoDeadLetter, NotRequeued, TopologyMismatch
from ..jsonrpc import messages
from ..jsonrpc.text import Malformed, loads
from ..wire.display import printable, redact
from ..wire.names import DEFAULT_EXCHANGE, check_service, dead_letter_queue

if TYPE_CHECKING:
    from ..amqp.base import Delivery
    from ..amqp.queue_browser import QueueBrowser

# What a look holds in memory at most, with all the bodies.
LIMIT = 1000
# All that RabbitMQ ever takes: a message that is cut could not be sent again.
MAX_BODY = 512 << 20
_KEY_DIGITS = 12
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)
# Enough to name one among the letters that a person looks at; the whole digest may be given.
_KEY = re.compile(r"[0-9a-f]{4,64}")
# What was said of a letter on its way. CC would send copies to whom its sender named, in the operator's name.
_NOT_ITS_OWN = re.compile(r"x-.*|timeout-ms|CC|BCC", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """
    One request that was given up. All of it but ``user_id`` is what its sender, or a server, said.

    Texts are decoded from UTF-8 with ``surrogateescape``: escape them before they are shown.

    Attributes:
        key: Names it: 12 hexadecimal digits, made of its ids, its routing key and its body. Letters that are alike in
            all of these share one.
        routing_key: As it was sent.
        user_id: Its sender, which the broker verified; None: unknown.
        message_id: Of a notification; None: it has none.
        correlation_id: Of a call; None: it has none.
        reason: "rejected" or "delivery_limit"; None: not known.
        count: How often it died for this reason, by RabbitMQ's count; None: not known.
        died: When, in UTC; None: not known.
        headers: All AMQP headers, RabbitMQ's own (``x-death``, ...) included.
        body: As it was sent.
        is_notification: Nobody waits for an answer, so that it may be sent again.
        method: Of a batch the methods of its members, joined by ", "; None: it has none.
    """

    key: str
    routing_key: str
    user_id: str | None
    message_id: str | None
    correlation_id: str | None
    reason: str | None
    count: int | None
    died: datetime | None
    headers: Mapping[str, Any]
    body: bytes
    is_notification: bool
    method: str | None


_Letters = list[DeadLetter]


class Requeued(NamedTuple):
    """
    What ``DeadLetters.requeue`` did.

    Attributes:
        sent: How many were sent again.
        left: How many were left where they are, with ``all=True``: calls, and what cannot be read.
    """

    sent: int
    left: int


class DeadLetters:
    """
    The dead letters of one service, kept by servers with ``dead_letters=True``. Blocking; not for many threads at once.

    Each operation looks through the queue over a connection of its own, and gives back what it does not remove, in
    order. Meanwhile others do not see what it holds. A quorum queue counts each look (``x-delivery-count``), and keeps
    the order of some thirty letters only.

    Args:
        url: As for ``Client``; not ``memory://``.
        service: The service's name.
        exchange: The topic exchange, to send requests again.
        queue: Where the dead letters are; ``<service>_dead`` where not given.
        tls: py-amqp's TLS options, as for ``Client``.
        connect_timeout: Seconds for one attempt to connect.
        timeout: Seconds that the broker has for each answer, and for each letter that is sent again.

    Raises:
        InvalidName: The service's name breaks a rule.
        ValueError: The URL is malformed, or ``memory://``.
    """

    def __init__(
        self,
        url: str,
        service: str,
        *,
        exchange: str = DEFAULT_EXCHANGE,
        queue: str | None = None,
        tls: Mapping[str, Any] | None = None,
        connect_timeout: float = 5.0,
        timeout: float = 30.0,
    ) -> None:
        self.service = check_service(service)
        if isinstance(url, str) and url.startswith(MEMORY):
            raise ValueError("dead letters are kept by RabbitMQ only: with memory:// there are none to look at")
        self.queue = queue or dead_letter_queue(service)
        self._url = url
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._name = f"jsonrpc-amqp dead letters {service}"
        # Nothing is declared, nor answered, so that a user who may read the queue and write to the exchange may do all.
        self._client = Client(
            url,
            service,
            exchange=exchange,
            reply="direct",
            declare=False,
            reconnect=False,
            tls=tls,
            timeout=timeout,
            connect_timeout=connect_timeout,
            connection_name=self._name,
            max_size=MAX_BODY,
        )

    def __repr__(self) -> str:
        return f"<DeadLetters of {self.service!r} at {redact(self._url)}>"

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection over which letters were sent again, if there is one."""
        self._client.close()

    def list(self, *, limit: int = LIMIT) -> _Letters:
        """
        Give the letters, by the second of their death, oldest first, and leave them where they are.

        Args:
            limit: Give no more than so many: all their bodies are in memory.

        Raises:
            TopologyMismatch: There is no such queue: the service keeps no dead letters here.
            AccessRefused: The user may not read it.
            NotConnected: There is no connection to the broker, or no answer.
        """
        with self._browser() as browser:
            letters = [held.letter for held in _all(browser, limit)]
        # A queue has them in this order as long as it was not looked through.
        return sorted(letters, key=lambda letter: letter.died or _LONG_AGO)

    def get(self, key: str) -> DeadLetter:
        """
        Give one letter, and leave it where it is.

        Args:
            key: See ``DeadLetter``; or the first digits of it, four or more, that no other has.

        Raises:
            NoDeadLetter: None has this key, or several have that begins so.
            TransportError: As ``list``.
        """
        with self._browser() as browser:
            return _named(browser, (key,))[0].letter

    def requeue(self, *keys: str, all: bool = False) -> Requeued:
        """
        Send notifications again, to the service and as the operator's own; each is removed once that is confirmed.

        What comes between may send one twice, and loses none. Headers are kept, other than RabbitMQ's own (``x-``) and
        CC. Calls are not sent again: their callers have been told, or are gone.

        Args:
            keys: Which ones; see ``get``.
            all: All that can be; calls are left where they are.

        Raises:
            NotRequeued: One that was named is a call; nothing was sent.
            NoDeadLetter: As ``get``; nothing was sent.
            TransportError: As ``list``, and as ``Client.notify``; the message says how many were sent before.
        """
        _check_choice(keys, all)
        sent = left = 0
        with self._browser() as browser:
            for held in _all(browser) if all else _sendable(_named(browser, keys)):
                if all and held.obstacle:
                    left += 1
                    continue
                self._send(held.letter, sent)
                browser.ack(held.delivery)
                sent += 1
        return Requeued(sent, left)

    def purge(self, *keys: str, all: bool = False) -> int:
        """
        Remove letters for good.

        Args:
            keys: Which ones; see ``get``.
            all: All that are there when it begins.

        Returns:
            How many they were.

        Raises:
            NoDeadLetter: As ``get``; nothing was removed.
            TransportError: As ``list``.
        """
        _check_choice(keys, all)
        count = 0
        with self._browser() as browser:
            for held in _all(browser) if all else _named(browser, keys):
                browser.ack(held.delivery)
                count += 1
        return count

    @contextmanager
    def _browser(self) -> Iterator[QueueBrowser]:
        # Imported when asked for, as the transports are.
        from ..amqp.queue_browser import QueueBrowser

        try:
            browser = QueueBrowser(
                self._url,
                self.queue,
                max_body=MAX_BODY,
                timeout=self._timeout,
                connect_timeout=self._connect_timeout,
                connection_name=self._name,
                tls=self._tls,
            )
        except TopologyMismatch as exc:
            raise TopologyMismatch(
                f"service {self.service!r} has no queue {self.queue!r} for dead letters here: its servers declare it "
                "when told to, with dead_letters=True (serve --dead-letters)"
            ) from exc
        with browser:
            yield browser

    def _send(self, letter: DeadLetter, sent: int) -> None:
        try:
            self._client.send_raw(letter.body, headers=_own(letter.headers))
        except JsonRpcAmqpError as exc:
            exc.args = (f"{exc}. The dead letter {letter.key} stays; {sent} before it were sent again",)
            raise


class _Held(NamedTuple):
    """
    A letter that was taken from the queue.

    Attributes:
        digest: Its whole key.
        obstacle: Why it cannot be sent again, if so.
    """

    delivery: Delivery
    letter: DeadLetter
    digest: str
    obstacle: str | None


def _all(browser: QueueBrowser, limit: int | None = None) -> Iterator[_Held]:
    """Take what is there now, and not what is yet to die."""
    for _ in range(browser.count if limit is None else min(browser.count, limit)):
        delivery = browser.get()
        if delivery is None:
            return
        yield _hold(delivery)


def _named(browser: QueueBrowser, keys: Iterable[str]) -> list[_Held]:
    """
    Take what is there, and give the letters that are named, oldest first.

    Raises:
        ValueError: That is no key.
        NoDeadLetter: A key names none, or several.
    """
    found: dict[str, list[_Held]] = {_checked_key(key): [] for key in keys}
    chosen = []
    for held in _all(browser):
        names = [key for key in found if held.digest.startswith(key)]
        for key in names:
            found[key].append(held)
        if names:
            chosen.append(held)
    for key, those in found.items():
        _check_one(key, {held.digest for held in those})
    return chosen


def _check_one(key: str, digests: set[str]) -> None:
    if not digests:
        raise NoDeadLetter(f"no dead letter has the key {key}, or has it any more")
    if len(digests) > 1:
        raise NoDeadLetter(f"{len(digests)} dead letters have a key that begins with {key}; give more of its digits")


def _sendable(chosen: list[_Held]) -> list[_Held]:
    for held in chosen:
        if held.obstacle:
            raise NotRequeued(
                f"the dead letter {held.letter.key} is not sent again: {held.obstacle}. Look at it with get (dead "
                "show), and remove it with purge. Nothing was sent"
            )
    return chosen


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"the key of a dead letter is {_KEY_DIGITS} hexadecimal digits, or the first four or more of them, not "
            f"{printable(key)}"
        )
    return key


def _check_choice(keys: tuple[str, ...], all: bool) -> None:
    if all == bool(keys):
        raise ValueError("say which dead letters: their keys, or all=True")


def _own(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if not _NOT_ITS_OWN.fullmatch(name)}


# -- reading a letter -------------------------------------------------------------------------------------------


def _hold(delivery: Delivery) -> _Held:
    body, headers = delivery.body or b"", _read_headers(delivery)
    digest = _digest(delivery, body)
    is_notification = messages.classify(body).is_notification
    reason, count, died = _death(headers)
    letter = DeadLetter(
        key=digest[:_KEY_DIGITS],
        routing_key=delivery.routing_key,
        user_id=delivery.user_id,
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
        reason=reason,
        count=count,
        died=died,
        headers=headers,
        body=body,
        is_notification=is_notification,
        method=_method(body),
    )
    return _Held(delivery, letter, digest, _obstacle(delivery, letter))


def _read_headers(delivery: Delivery) -> dict[str, Any]:
    # py-amqp leaves a name that is not UTF-8 as bytes.
    table: Mapping[Any, Any] = delivery.headers
    return {
        name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name: value
        for name, value in table.items()
    }


def _digest(delivery: Delivery, body: bytes) -> str:
    texts = (delivery.message_id, delivery.correlation_id, delivery.routing_key)
    parts = [*((text or "").encode("utf-8", "surrogateescape") for text in texts), body]
    # With their lengths, so that the end of one cannot pass for the beginning of the next.
    return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


def _death(headers: Mapping[str, Any]) -> tuple[str | None, int | None, datetime | None]:
    """Read the last death from ``x-death``, where RabbitMQ puts it first; what precedes may be a sender's invention."""
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(death, dict):
        return None, None, None
    reason, count, died = (death.get(name) for name in ("reason", "count", "time"))
    return (
        reason if isinstance(reason, str) else None,
        count if isinstance(count, int) else None,
        # AMQP's time is in UTC, which py-amqp does not say.
        died.replace(tzinfo=timezone.utc) if isinstance(died, datetime) else None,
    )


def _method(body: bytes) -> str | None:
    try:
        value = loads(body)
    except Malformed:
        return None
    members = value if isinstance(value, list) else [value]
    names = [member.get("method") for member in members if isinstance(member, dict)]
    return ", ".join(name for name in names if isinstance(name, str)) or None


def _obstacle(delivery: Delivery, letter: DeadLetter) -> str | None:
    if not letter.is_notification:
        return "it is a call, whose caller has been told, or has given up: call anew what is still wanted"
    # A table begins with its length; RabbitMQ takes some values that Python has none for.
    if not letter.headers and len(delivery.raw_headers or b"") > 4:
        return "its headers cannot be read, and would be lost"
    return None
