"""Declares and binds again, at intervals, since AMQP does not report a deleted exchange or binding."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial

from ..errors import AccessRefused, ConnectionLost, TransportError
from . import topology
from .base import Plan
from .operations import Done, Failed, Step

log = logging.getLogger("jsonrpc_amqp.transport")

# Something may be deleted between two steps.
_ATTEMPTS = 3
_EXCHANGE, _QUEUE = "the exchange", "the queue"


class Redeclaration:
    """
    What one link declares and binds again.

    Args:
        perform: See ``Operations.perform``.
        bind: Binds the queue with a key.

    Attributes:
        is_restorable: A missing exchange can be declared, and only replies were to go over it.
    """

    def __init__(
        self, plan: Plan, perform: Callable[[Step, Done, Failed, object], None], bind: Callable[..., None]
    ) -> None:
        self._plan = plan
        self._perform = perform
        self._bind = bind
        self._refused: Counter[str] = Counter()
        self.is_restorable = plan.declare and plan.queue is not None
        self._bindings: dict[str, None] = {}  # the keys that the queue is bound with; in order

    def note_bound(self, keys: Iterable[str]) -> None:
        """Note that the queue is bound with some keys."""
        self._bindings.update(dict.fromkeys(keys))

    def begin(
        self,
        done: Callable[[], None] | None = None,
        *,
        bindings: Collection[str] | None = None,
        attempts: int = _ATTEMPTS,
        queue: bool = False,
    ) -> None:
        """
        Declare and bind again, in case something was deleted.

        A right that the user has lost since deletes nothing: what is refused is only checked from then on, or left.

        Args:
            done: Called when all is there again; something is known to be missing then, so that a refusal is a loss.
            bindings: Of the keys that the queue is bound with, only these; None: all.
            queue: The queue may be gone as well. A second attempt supposes so.

        Raises:
            ConnectionLost: Later: it cannot be declared again.
        """
        left = deque(self._steps(bindings, queue=queue or attempts < _ATTEMPTS))

        def succeeded(_args: object) -> None:
            left.popleft()
            if not left and done is not None:
                done()

        def failed(problem: TransportError) -> None:
            name, _step = left.popleft()
            if done is None and isinstance(problem, AccessRefused):
                self._note_refusal(name, problem)
                perform()
            elif attempts == 1 or not self.is_restorable:
                raise ConnectionLost(f"what was declared is gone, and cannot be declared again: {problem}")
            else:
                self.begin(done, bindings=bindings, attempts=attempts - 1, queue=queue)

        def perform() -> None:
            batch = object()
            for _name, step in left:
                self._perform(step, succeeded, failed, batch)

        perform()
        if not left and done is not None:
            done()

    def _steps(self, bindings: Collection[str] | None, *, queue: bool) -> list[tuple[str, Step]]:
        plan, refused = self._plan, self._refused
        steps: list[tuple[str, Step]] = []
        if plan.declare and plan.exchange and refused[_EXCHANGE] < 2:
            asked = replace(plan, declare=False) if refused[_EXCHANGE] else plan  # only checked
            steps.append((_EXCHANGE, partial(topology.declare_exchange, plan=asked)))
        if plan.declare and plan.queue and queue and not refused[_QUEUE]:
            steps.append((_QUEUE, partial(topology.declare_request_queue, plan=plan)))
        keys = self._bindings if bindings is None else [key for key in bindings if key in self._bindings]
        return steps + [(key, partial(self._bind, key=key)) for key in keys if not refused[key]]

    def _note_refusal(self, name: str, problem: AccessRefused) -> None:
        self._refused[name] += 1
        what = name if name in (_EXCHANGE, _QUEUE) else f"the binding {name!r}"
        log.warning("%s is not declared again on this connection, which goes on: %s", what, problem)
