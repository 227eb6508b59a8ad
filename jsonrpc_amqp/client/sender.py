"""Sends calls, and parks those that cannot be sent now. The lock of the requests guards all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial

from ..amqp.base import Publish, Session
from ..dialects import ClientDialect
from ..errors import CallTimeout, EncodeError, JsonRpcAmqpError, TransportError
from ..wire.publish import call_message, notification_message
from .addresses import Addresses, AnyAddress
from .call import Call
from .consumer_checks import ConsumerChecks
from .pending import Pending
from .reply_bindings import ReplyBindings

Failed = list[tuple[Call, JsonRpcAmqpError]]
"""Calls that are no longer pending, and the errors that end them."""


class Sender:
    """
    Sends the calls of one client.

    Args:
        bindings: A call is sent once its reply can arrive.
        checks: Whether there are consumers, for the calls that need some.
        dialect: Translates requests; None: they are JSON-RPC.
        confirm: Have the broker confirm calls, too.
        go_on: Called with a session and what sends the calls that waited for something, and returns those that failed;
            it is to be run with the lock held, if the session is open.
        on_confirmed: Called when the broker has confirmed a message, or rejected it.
    """

    def __init__(
        self,
        pending: Pending,
        addresses: Addresses,
        bindings: ReplyBindings,
        checks: ConsumerChecks,
        dialect: ClientDialect | None,
        *,
        confirm: bool,
        go_on: Callable[[Session, Callable[[], Failed]], None],
        on_confirmed: Callable[[Call, TransportError | None], None],
    ) -> None:
        self._pending = pending
        self._addresses = addresses
        self._bindings = bindings
        self._checks = checks
        self._dialect = dialect
        self._confirm = confirm
        self._go_on = go_on
        self._on_confirmed = on_confirmed
        self._parked: dict[str, Call] = {}  # by number, in the order to send them in
        self._held: dict[str, dict[str, Call]] = {}  # by service: those that wait for its binding, or for consumers

    def send_or_park(self, session: Session | None, call: Call) -> JsonRpcAmqpError | None:
        """Send a call, or keep it until it can be sent; return the error that ends it, if any."""
        if session is None or session.congested:
            self._parked[call.number] = call
            return None
        options = call.send_options
        if options.needs_consumers and not self._checks.may_send(session, call.service, self._checked):
            self._held.setdefault(call.service, {})[call.number] = call
            return None
        if not self._bindings.is_bound(call.service) and not options.is_notification:
            self._held.setdefault(call.service, {})[call.number] = call
            self._bindings.bind(session, call.service, partial(self._bound, session))
            return None
        try:
            message = self._describe(self._addresses.of(call.service), call)
            if self._confirm or options.is_notification or options.persistent:
                call.sent = session.publish_confirmed(message, partial(self._on_confirmed, call))
            else:
                call.sent = session.publish(message)
        except (CallTimeout, EncodeError) as exc:
            return self._failed(call, exc)
        except Exception as exc:
            return self._failed(call, EncodeError(f"AMQP has no form for the message: {exc}"))
        if not call.sent:
            self._parked[call.number] = call  # the session has just ended; there will be another
        return None

    def send_parked(self, session: Session) -> Failed:
        """Send the parked calls, as far as possible; return those that failed."""
        held, self._held = self._held, {}
        parked, self._parked = self._parked, {}
        calls = [each for calls in held.values() for each in calls.items()]
        return self._send(session, [*calls, *parked.items()])

    def send_held(self, session: Session | None, service: str) -> Failed:
        """Send the calls of a service that waited for its binding, or for a check; return those that failed."""
        return self._send(session, self._held.pop(service, {}).items())

    def send_again(self, session: Session | None, calls: Iterable[Call]) -> Failed:
        """Send calls for another attempt; return those that failed."""
        return self._send(session, ((call.number, call) for call in calls))

    def give_up(self, call: Call) -> bool:
        """Drop a call that is not to be sent again either, should it be failing at this moment."""
        call.deadline = -math.inf  # no other attempt is in time
        return self.drop(call)

    def drop(self, call: Call) -> bool:
        """Remove a call from those that are pending and parked. False: it is not pending, so it ends otherwise."""
        self.forget([call])
        return self._pending.drop(call.number) is not None

    def forget(self, calls: Iterable[Call]) -> None:
        """Drop those that are parked of calls that have ended: otherwise those of an outage would pile up."""
        for call in calls:
            self._parked.pop(call.number, None)
            if (held := self._held.get(call.service)) is not None:
                held.pop(call.number, None)

    def clear(self) -> None:
        """Drop all parked calls."""
        self._parked.clear()
        self._held.clear()

    def _bound(self, session: Session, service: str, error: TransportError | None) -> None:
        self._go_on(session, partial(self._send_bound, session, service, error))

    def _send_bound(self, session: Session, service: str, error: TransportError | None) -> Failed:
        self._bindings.note_bound(service, error)
        if error is None:
            return self.send_held(session, service)
        calls = self._pending.take(lambda call: call.service == service and not call.sent)
        self.forget(calls)
        return [(call, error.again()) for call in calls]

    def _checked(self, session: Session, service: str) -> None:
        self._go_on(session, partial(self._send_checked, session, service))

    def _send_checked(self, session: Session, service: str) -> Failed:
        error = self._checks.conclude(service)
        if error is None:
            return self.send_held(session, service)
        held = list(self._held.get(service, {}).values())  # a copy: a signal handler may submit calls meanwhile
        return [(call, error.again()) for call in held if call.send_options.needs_consumers and self.drop(call)]

    def _send(self, session: Session | None, calls: Iterable[tuple[str, Call]]) -> Failed:
        failed = []
        for number, call in calls:
            if number in self._pending and (error := self.send_or_park(session, call)) is not None:
                failed.append((call, error))
        return failed

    def _failed(self, call: Call, error: JsonRpcAmqpError) -> JsonRpcAmqpError | None:
        # A signal handler that interrupted the sending may have ended it: by closing the client.
        return None if self._pending.pop(call.number) is None else error

    def _describe(self, address: AnyAddress, call: Call) -> Publish:
        options = call.send_options
        if options.is_notification:
            message = notification_message(
                address,
                call.body,
                message_id=f"{address.client}-{call.number}",
                persistent=options.persistent,
                headers=options.headers,
            )
        else:
            message = call_message(
                address,
                call.body,
                number=call.number,
                qid=call.qid,
                deadline=None if call.timeout is None else call.deadline,
                now=time.monotonic(),
                persistent=options.persistent,
                headers=options.headers,
            )
        return message if self._dialect is None else self._dialect.request(address, call.number, message)
