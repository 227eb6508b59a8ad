"""
Dead letters: the requests of a service that no server could handle, for an operator to inspect, requeue or purge.

    with DeadLetters("amqp://", "example") as dead:
        for letter in dead.list():
            print(letter.key, letter.died, letter.reason, letter.method)
        dead.requeue("3fa94c01d2be")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..amqp.transport import MEMORY
from ..client.client import Client
from ..errors import (
    EncodeError,
    JsonRpcAmqpError,
    MessageRejected,
    MessageTooLarge,
    NotRequeued,
    TopologyMismatch,
)
from ..options import CONNECT_TIMEOUT, TIMEOUT
from ..wire.display import redact, sender
from ..wire.names import DEFAULT_EXCHANGE, check_service, dead_letter_queue
from ..wire.names import request_queue as _request_queue
from .letter import DeadLetter, HeldLetter, Service, headers_to_resend, read_letter, select, without_body

if TYPE_CHECKING:
    from ..amqp.queue_browser import QueueBrowser

# Most letters that ``list`` holds in memory, with their bodies.
LIMIT = 1000
# The largest message that RabbitMQ can be configured to take: a message that was cut off could not be sent again.
MAX_BODY = 512 << 20
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


# Within DeadLetters, ``list`` is a method.
_Letters = list[DeadLetter]


class Requeued(NamedTuple):
    """
    What ``DeadLetters.requeue`` did.

    Attributes:
        sent: How many letters were sent again.
        left: How many stayed, with ``all=True``: calls, letters that no server has checked, and those that cannot be
            read, or that the broker would not take.
    """

    sent: int
    left: int


class DeadLetters:
    """
    The dead letters of one service, kept by servers with ``dead_letters=True``. Blocking; for one thread at a time.

    Each operation reads the queue over a connection of its own, and returns the letters that it does not remove to the
    queue, in order. Meanwhile no other consumer sees them. A quorum queue counts each reading (``x-delivery-count``),
    and keeps the order of about thirty letters only.

    Args:
        url: As for ``Client``; not ``memory://``.
        service: The service's name.
        exchange: The topic exchange, to send requests again.
        queue: Where the dead letters are; ``<service>_dead`` where not given.
        request_queue: The queue that the servers consume; ``<service>_req`` where not given.
        tls: py-amqp's TLS options, as for ``Client``.
        connect_timeout: Seconds for one attempt to connect.
        timeout: Seconds that the broker has for each reply, and for each letter that is sent again.

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
        request_queue: str | None = None,
        tls: Mapping[str, Any] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = TIMEOUT,
    ) -> None:
        self.service = check_service(service)
        if isinstance(url, str) and url.startswith(MEMORY):
            raise ValueError("dead letters are kept by RabbitMQ only: with memory:// there are none to look at")
        self.queue = queue or dead_letter_queue(service)
        self._service = Service(exchange, request_queue or _request_queue(service))
        self._url = url
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._name = f"jsonrpc-amqp dead letters {service}"
        # Declares nothing and awaits no replies, so permissions to read the queue and write to the exchange are enough.
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
        """Close the connection that sent letters again, if there is one."""
        self._client.close()

    def list(self, *, limit: int = LIMIT, bodies: bool = True) -> _Letters:
        """
        Return the letters, oldest first by the second of their death, and leave them in the queue.

        Args:
            limit: Most letters to return.
            bodies: Return their bodies, too, which are in memory all at once: a user can have large ones kept. False:
                each ``body`` is empty, ``method`` is cut after 1,000 characters, and ``headers`` are left out where
                they have over 16 KiB.

        Raises:
            TopologyMismatch: There is no such queue: the service keeps no dead letters here.
            AccessRefused: The user may not read it.
            NotConnected: There is no connection to the broker, or no reply from it.
        """
        with self._browser() as browser:
            letters = [held.letter if bodies else without_body(held) for held in self._take(browser, limit)]
        # A queue has them in this order until the letters in it are read for the first time.
        return sorted(letters, key=lambda letter: letter.died or _LONG_AGO)

    def get(self, key: str) -> DeadLetter:
        """
        Return one letter, and leave it in the queue.

        Args:
            key: See ``DeadLetter``; or four or more of its first digits, if no other key begins with them.

        Raises:
            NoDeadLetter: No letter matches this key, or the prefix is ambiguous.
            TransportError: As ``list``.
        """
        with self._browser() as browser:
            return select(self._take(browser), (key,))[0].letter

    def requeue(self, *keys: str, all: bool = False, unchecked: bool = False) -> Requeued:
        """
        Send notifications again, to the service and in the operator's name; remove each once the broker confirmed it.

        A failure in between may send one letter twice, and loses none. Headers are kept, except for RabbitMQ's own
        (``x-``) and CC. Calls are not sent again: their callers got an error, or are gone. Nor are letters that no
        server has checked: the operator may call what their senders may not.

        Args:
            keys: Which ones; see ``get``.
            all: All that can be sent again; the others stay in the queue.
            unchecked: Send the named letters even if no server has checked them (see ``DeadLetter``).

        Raises:
            ValueError: Neither keys nor ``all``, or both; or ``all`` with ``unchecked``.
            NotRequeued: One of the named letters is a call, cannot be read, or is not checked; nothing was sent.
            NoDeadLetter: As ``get``; nothing was sent.
            TransportError, EncodeError: As ``list``, and as ``Client.notify``; the message says how many were sent
                before.
        """
        _check_choice(keys, all)
        if all and unchecked:
            raise ValueError("unchecked dead letters are sent again by their keys only: look at each first")
        sent = left = 0
        with self._browser() as browser:
            for held in self._take(browser) if all else _sendable(select(self._take(browser), keys), unchecked):
                if _obstacle(held, unchecked) or not self._send(held.letter, sent, may_stay=all):
                    left += 1
                    continue
                browser.ack(held.delivery)
                sent += 1
        return Requeued(sent, left)

    def purge(self, *keys: str, all: bool = False) -> int:
        """
        Remove letters for good.

        Args:
            keys: Which ones; see ``get``.
            all: All that are in the queue when it begins.

        Returns:
            How many letters were removed.

        Raises:
            NoDeadLetter: As ``get``; nothing was removed.
            TransportError: As ``list``.
        """
        _check_choice(keys, all)
        count = 0
        with self._browser() as browser:
            for held in self._take(browser) if all else select(self._take(browser), keys):
                browser.ack(held.delivery)
                count += 1
        return count

    @contextmanager
    def _browser(self) -> Iterator[QueueBrowser]:
        # Imported late, as transports are: it imports the AMQP libraries.
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

    def _take(self, browser: QueueBrowser, limit: int | None = None) -> Iterator[HeldLetter]:
        """Take the letters that are in the queue now, and none that arrive meanwhile."""
        for _ in range(browser.count if limit is None else min(browser.count, limit)):
            delivery = browser.get()
            if delivery is None:
                return
            yield read_letter(delivery, self._service)

    def _send(self, letter: DeadLetter, sent: int, *, may_stay: bool) -> bool:
        """Send a letter again. False: the broker takes no such letter, and it ``may_stay``, so that others are sent."""
        try:
            self._client.send_raw(letter.body, headers=headers_to_resend(letter))
        except JsonRpcAmqpError as exc:
            if may_stay and isinstance(exc, (EncodeError, MessageRejected, MessageTooLarge)):
                return False
            exc.args = (f"{exc}. The dead letter {letter.key} stays; {sent} before it were sent again",)
            raise
        return True


def _sendable(letters: list[HeldLetter], unchecked: bool) -> list[HeldLetter]:
    for held in letters:
        obstacle = _obstacle(held, unchecked)
        if obstacle:
            raise NotRequeued(
                f"the dead letter {held.letter.key} is not sent again: {obstacle}. Look at it with get (dead "
                "show), and remove it with purge. Nothing was sent"
            )
    return letters


def _obstacle(held: HeldLetter, unchecked: bool) -> str | None:
    letter = held.letter
    if held.obstacle or letter.checked or unchecked:
        return held.obstacle
    return (
        f"no server has checked that its sender, {sender(letter.user_id)}, may call what it asks for, and you may. If "
        "you know that it is right, say so with unchecked=True (--unchecked)"
    )


def _check_choice(keys: tuple[str, ...], all: bool) -> None:
    if all == bool(keys):
        raise ValueError("say which dead letters: their keys, or all=True")
