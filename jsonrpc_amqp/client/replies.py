"""Pairs what arrives with the calls that wait for it."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TypeAlias

from ..amqp.base import Delivery
from ..dialects import ClientDialect
from ..errors import MalformedReply
from ..wire.display import printable
from ..wire.reply_checks import ReplyChecks
from .addresses import Addresses
from .call import Call
from .pending import Pending

log = logging.getLogger("jsonrpc_amqp.client")


Paired: TypeAlias = tuple[Delivery, Call | None, str | None]
"""A delivery, and the call whose reply it is; or why it is not the reply to the call that it names."""


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

    def pair(self, delivery: Delivery) -> Paired:
        """Find the call of a delivery, and remove it from the pending ones. With the lock of the requests held."""
        number = delivery.correlation_id
        call = self._pending.get(number)
        if call is None:
            return delivery, None, None
        mismatch = self._mismatch(call, delivery)
        if mismatch is not None:
            return delivery, None, mismatch
        return delivery, self._pending.pop(number), None

    def end_call(self, paired: Paired) -> None:
        """End the call, or count and log what is no reply. Without any lock held."""
        delivery, call, mismatch = paired
        if call is not None:
            self._succeed(call, delivery)
        elif mismatch is not None:
            self._reject(delivery, mismatch)
        else:
            self._stats["dropped_replies"] += 1
            log.info("dropped a late reply (correlation_id %s)", printable(delivery.correlation_id or ""))

    def _mismatch(self, call: Call, delivery: Delivery) -> str | None:
        if call.send_options.is_notification or not call.sent:
            return "nothing was asked under this number"
        qid = call.qid if self._dialect is None else call.number
        return self._checks.mismatch(delivery, self._addresses.reply_key(call.service, qid))

    def _reject(self, delivery: Delivery, mismatch: str) -> None:
        self._last_mismatch = mismatch
        self._stats["rejected_replies"] += 1
        log.warning(
            "rejected an answer (correlation_id %s): %s; its call goes on waiting",
            printable(delivery.correlation_id or ""),
            mismatch,
        )

    def _succeed(self, call: Call, delivery: Delivery) -> None:
        body = delivery.body
        if body is None:
            call.fail(MalformedReply(f"the answer of {call.service!r} has {delivery.size} bytes, over the size cap"))
            return
        if self._dialect is not None:
            try:
                body = self._dialect.response(call.body, body)
            except Exception as exc:
                call.fail(MalformedReply(f"the answer of {call.service!r} makes no sense: {exc}"))
                return
        call.succeed(body)


def callbacks_last(paired: list[Paired]) -> list[Paired]:
    """Return replies in the order to handle them in: those whose calls run callbacks, which may be slow, come last."""
    if len(paired) == 1:
        return paired
    later = [each for each in paired if each[1] is not None and each[1].has_callbacks]
    if len(later) == len(paired):
        return later
    return [each for each in paired if each[1] is None or not each[1].has_callbacks] + later
