"""Declares and binds again, at intervals, since AMQP does not report a deleted exchange or binding."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import AccessRefused, ConnectionLost, TransportError
from .base import Plan
from .py_amqp import AmqpChannel

log = logging.getLogger("jsonrpc_amqp.transport")

Step = Callable[[AmqpChannel], Any]
Perform = Callable[[Step, Callable[[tuple[Any, ...]], None], Callable[[TransportError], None]], None]
_ATTEMPTS = 3
_EXCHANGE = "the exchange"


class Redeclaration:
    """
    What one link declares and binds again.

    Args:
        perform: Performs a step on the control channel; calls its second argument with the reply, or its third with
            the error.
        declare_exchange: Declares the exchange, or checks that it exists (``passive``).
        bind: Binds the queue with a key.
        is_restorable: A missing exchange can be declared, and only replies were to go over it.
    """

    def __init__(
        self,
        plan: Plan,
        perform: Perform,
        *,
        declare_exchange: Callable[..., None],
        bind: Callable[..., None],
        is_restorable: bool,
    ) -> None:
        self._declares = plan.declare and bool(plan.exchange)
        self._perform = perform
        self._declare_exchange = declare_exchange
        self._bind = bind
        self._is_restorable = is_restorable
        self._refused: Counter[str] = Counter()
        self.bindings: list[str] = []

    def begin(self, done: Callable[[], None] | None = None, *, attempts: int = _ATTEMPTS) -> None:
        """
        Declare and bind again, in case something was deleted.

        A right that the user has lost since deletes nothing: what is refused is only checked from then on, or left.

        Args:
            done: Called when all is there again; something is known to be missing then, so that a refusal is a loss.

        Raises:
            ConnectionLost: Later: it cannot be declared again.
        """
        steps = self._steps()
        problems: list[TransportError | None] = []

        def ended(name: str, problem: TransportError | None) -> None:
            if done is None and isinstance(problem, AccessRefused):
                self._note_refusal(name, problem)
                problem = None
            problems.append(problem)
            if len(problems) < len(steps):
                return
            first = next((each for each in problems if each is not None), None)
            if first is not None and (attempts == 1 or not self._is_restorable):
                raise ConnectionLost(f"what was declared is gone, and cannot be declared again: {first}")
            if first is not None:
                # Something was deleted between two of the steps.
                self.begin(done, attempts=attempts - 1)
            elif done is not None:
                done()

        for name, step in steps:
            self._perform(step, partial(_succeeded, partial(ended, name, None)), partial(ended, name))
        if not steps and done is not None:
            done()

    def _steps(self) -> list[tuple[str, Step]]:
        refused = self._refused
        steps: list[tuple[str, Step]] = []
        if self._declares and refused[_EXCHANGE] < 2:
            steps.append((_EXCHANGE, partial(self._declare_exchange, passive=refused[_EXCHANGE] > 0)))
        steps += [(key, partial(self._bind, key=key)) for key in self.bindings if not refused[key]]
        return steps

    def _note_refusal(self, name: str, problem: AccessRefused) -> None:
        self._refused[name] += 1
        what = name if name == _EXCHANGE else f"the binding {name!r}"
        log.warning("%s is not declared again on this connection, which goes on: %s", what, problem)


def _succeeded(then: Callable[[], None], _args: object) -> None:
    then()
