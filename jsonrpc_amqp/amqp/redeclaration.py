"""Declares and binds again, at intervals, since AMQP does not report a deleted exchange or binding."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import AccessRefused, ConnectionLost, TransportError
from . import topology
from .base import Plan
from .py_amqp import AmqpChannel

log = logging.getLogger("jsonrpc_amqp.transport")

Step = Callable[[AmqpChannel], Any]
Perform = Callable[[Step, Callable[[tuple[Any, ...]], None], Callable[[TransportError], None]], None]
# Something may be deleted between two steps.
_ATTEMPTS = 3
_EXCHANGE, _QUEUE = "the exchange", "the queue"


class Redeclaration:
    """
    What one link declares and binds again.

    Args:
        perform: Performs a step on the control channel; calls its second argument with the reply, or its third with
            the error.
        bind: Binds the queue with a key.

    Attributes:
        is_restorable: A missing exchange can be declared, and only replies were to go over it.
        bindings: The keys that the queue is bound with.
    """

    def __init__(self, plan: Plan, perform: Perform, bind: Callable[..., None]) -> None:
        self._plan = plan
        self._perform = perform
        self._bind = bind
        self._refused: Counter[str] = Counter()
        self.is_restorable = plan.declare and plan.queue is not None
        self.bindings: list[str] = []

    def begin(self, done: Callable[[], None] | None = None, *, attempts: int = _ATTEMPTS, queue: bool = False) -> None:
        """
        Declare and bind again, in case something was deleted.

        A right that the user has lost since deletes nothing: what is refused is only checked from then on, or left.

        Args:
            done: Called when all is there again; something is known to be missing then, so that a refusal is a loss.
            queue: The queue may be gone as well. A second attempt supposes so.

        Raises:
            ConnectionLost: Later: it cannot be declared again.
        """
        steps = self._steps(queue=queue or attempts < _ATTEMPTS)
        problems: list[TransportError | None] = []

        def ended(name: str, problem: TransportError | None) -> None:
            if done is None and isinstance(problem, AccessRefused):
                self._note_refusal(name, problem)
                problem = None
            problems.append(problem)
            if len(problems) < len(steps):
                return
            first = next((each for each in problems if each is not None), None)
            if first is not None and (attempts == 1 or not self.is_restorable):
                raise ConnectionLost(f"what was declared is gone, and cannot be declared again: {first}")
            if first is not None:
                self.begin(done, attempts=attempts - 1, queue=queue)
            elif done is not None:
                done()

        for name, step in steps:
            self._perform(step, partial(_succeeded, partial(ended, name, None)), partial(ended, name))
        if not steps and done is not None:
            done()

    def _steps(self, *, queue: bool) -> list[tuple[str, Step]]:
        plan, refused = self._plan, self._refused
        steps: list[tuple[str, Step]] = []
        if plan.declare and plan.exchange and refused[_EXCHANGE] < 2:
            asked = replace(plan, declare=False) if refused[_EXCHANGE] else plan  # only checked
            steps.append((_EXCHANGE, partial(topology.declare_exchange, plan=asked)))
        if plan.declare and plan.queue and queue and not refused[_QUEUE]:
            steps.append((_QUEUE, partial(topology.declare_request_queue, plan=plan)))
        steps += [(key, partial(self._bind, key=key)) for key in self.bindings if not refused[key]]
        return steps

    def _note_refusal(self, name: str, problem: AccessRefused) -> None:
        self._refused[name] += 1
        what = name if name in (_EXCHANGE, _QUEUE) else f"the binding {name!r}"
        log.warning("%s is not declared again on this connection, which goes on: %s", what, problem)


def _succeeded(then: Callable[[], None], _args: object) -> None:
    then()
