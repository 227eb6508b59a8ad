"""Pairs what arrives with the calls that wait for it."""

from __future__ import annotations

import logging
from collections import Counter

from ..amqp.base import Delivery
from ..dialects import ClientDialect
from ..errors import MalformedReply
from ..wire.display import printable
from ..wire.reply_checks import ReplyChecks
from .addresses import Addresses
from .call import Call
from .pending import Pending

log = logging.getLogger("jsonrpc_amqp.client")


Paired = tuple[Delivery, Call | None, str | None]
"""A delivery, the pending call whose number it has, and why it is not the reply to that call. Plain: one per reply."""


class Replies:
    """
    The replies to one client.

    Args:
        checks: What a reply must look like.
        dialect: Translates replies; None: they are JSON-RPC.
        stats: Counts ``dropped_replies`` and ``rejected_replies``.
    """

    def __init__(
        self,
        pending: Pending,
        addresses: Addresses,
        checks: ReplyChecks,
        dialect: ClientDialect | None,
        stats: Counter[str],
    ) -> None:
        self._pending = pending
        self._addresses = addresses
        self._checks = checks
        self._dialect = dialect
        self._stats = stats
        self._last_mismatch: str | None = None

    @property
    def hint(self) -> str:
        """What the error of a call without a reply says besides, as the end of a sentence."""
        hint = "" if self._dialect is None else ". Is it a server that speaks this dialect?"
        if self._last_mismatch is None:
            return hint
        count = self._stats["rejected_replies"]
        return f"{hint}. {count} answers were rejected so far; of the last: {self._last_mismatch}"

    def translate(self, deliveries: list[Delivery]) -> None:
        """Have the dialect, if there is one, say which call each delivery is for."""
        if self._dialect is not None:
            for delivery in deliveries:
                delivery.correlation_id = self._dialect.number(delivery)

    def pair(self, deliveries: list[Delivery]) -> list[Paired]:
        """Find the calls of deliveries, and remove them from the pending ones. With the lock of the requests held."""
        pending = self._pending
        paired: list[Paired] = []
        for delivery in deliveries:
            call = pending.get(delivery.correlation_id)
            mismatch = None
            if call is not None:
                mismatch = self._mismatch(call, delivery)
                if mismatch is None:
                    call = pending.pop(call.number)  # None: a signal handler has just cancelled it
            paired.append((delivery, call, mismatch))
        return paired

    def end_calls(self, paired: list[Paired]) -> None:
        """End the calls of replies; those that run callbacks, which may be slow, come last. Without any lock."""
        later: list[tuple[Call, Delivery]] = []
        strays: list[Paired] = []
        for each in paired:
            delivery, call, mismatch = each
            if call is None:
                self._stats["dropped_replies"] += 1
                strays.append(each)
            elif mismatch is not None:
                self._last_mismatch = mismatch
                self._stats["rejected_replies"] += 1
                strays.append(each)
            elif call.has_callbacks:
                later.append((call, delivery))
            else:
                self._end(call, delivery)
        for call, delivery in later:
            self._end(call, delivery)
        for delivery, _call, mismatch in strays:  # last: a log handler may take its time, or wait for a call of these
            _log_stray(delivery, mismatch)

    def note_undecoded(self, delivery: Delivery, why: str) -> None:
        """Count a reply that cannot be read, so that it is not known to which call."""
        self._last_mismatch = why
        self._stats["rejected_replies"] += 1
        log.warning("rejected an answer that cannot be read (%s): %s", printable(delivery.routing_key), why)

    def _mismatch(self, call: Call, delivery: Delivery) -> str | None:
        if call.send_options.is_notification or not call.sent:
            return "nothing was asked under this number"
        qid = call.qid if self._dialect is None else call.number
        return self._checks.mismatch(delivery, self._addresses.reply_key(call.service, qid))

    def _end(self, call: Call, delivery: Delivery) -> None:
        body = delivery.body
        if body is None:
            call.fail(MalformedReply(f"the answer of {call.service!r} has {delivery.size} bytes, over the size cap"))
        elif self._dialect is None:
            call.succeed(body)
        else:
            self._end_in_dialect(self._dialect, call, body)

    @staticmethod
    def _end_in_dialect(dialect: ClientDialect, call: Call, body: bytes) -> None:
        try:
            response = dialect.response(call.body, body)
        except Exception as exc:
            call.fail(MalformedReply(f"the answer of {call.service!r} makes no sense: {exc}"))
        else:
            call.succeed(response)


def _log_stray(delivery: Delivery, mismatch: str | None) -> None:
    number = printable(delivery.correlation_id or "")
    if mismatch is None:
        log.info("dropped a late reply (correlation_id %s)", number)
    else:
        log.warning("rejected an answer (correlation_id %s): %s; its call goes on waiting", number, mismatch)
