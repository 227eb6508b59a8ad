"""The life of one client: its process, its session, and why there is none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..amqp.base import Session
from ..errors import ClientClosed, TransportError
from ..wire.health import Health, problems_of
from .timeouts import not_connected

_process = os.getpid()


def _note_process() -> None:
    global _process
    _process = os.getpid()


# To ask the system at each call would cost as much as all the locks of that call.
os.register_at_fork(after_in_child=_note_process)


class Lifecycle:
    """
    What a client waits for. Guarded by ``lock``, which is the lock of the requests.

    Attributes:
        session: The live one, if there is one.
        failure: Of the last attempt to connect, since there was a session.
        gave_up: There will be no other attempt until the client is used again.
        closed: The client was closed.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._changed = threading.Condition(lock)
        self._watchers: list[Callable[[], object]] = []
        self._pid: int | None = None
        self.session: Session | None = None
        self.failure: TransportError | None = None
        self.gave_up = False
        self.closed = False

    def check_open(self) -> None:
        """
        Check that the client may be used.

        Raises:
            ClientClosed: It was closed.
        """
        if self.closed:
            raise ClientClosed("the client is closed; make a new one")

    def check_process(self) -> None:
        """
        Check that the client is used in one process only. Without the lock, which may be locked for ever after a fork.

        Raises:
            ClientClosed: This process was forked by the one that uses it.
        """
        process = _process
        if self._pid != process:
            self.check_not_foreign()
            # At the first use: a client that was only made before a fork serves both sides.
            self._pid = process

    def check_not_foreign(self) -> None:
        """
        Check that no other process uses the client, without using it. Without the lock, as ``check_process``.

        Raises:
            ClientClosed: This process was forked by the one that uses it.
        """
        if self.is_foreign():
            raise ClientClosed(
                f"this client belongs to process {self._pid}, which forked this one: a connection cannot be shared. "
                "Make a client in each process"
            )

    @property
    def is_used(self) -> bool:
        """Whether this process has used the client, and not closed it."""
        return self._pid == _process and not self.closed

    def is_foreign(self) -> bool:
        """Return whether another process uses the client."""
        return self._pid not in (None, _process)

    def health(self) -> Health:
        """Return whether calls would be sent now. Without the lock: a probe is not to wait for it."""
        if self.closed:
            return Health(("the client is closed",), is_alive=False, is_ending=True)
        return Health(tuple(problems_of(self.session, self.failure)))

    def begin(self) -> None:
        """Forget the failure that ended the attempts; that of one which others follow may still be asked for."""
        with self._changed:
            self.check_open()
            if self.gave_up:
                self.failure, self.gave_up = None, False

    @property
    def is_settled(self) -> bool:
        """Whether ``check_session`` has an answer: there is a session, or there will be none."""
        return self.session is not None or self.gave_up or self.closed

    def check_session(self, timeout: float | None) -> None:
        """
        Check that there is a session, after a wait for it of ``timeout`` seconds at most.

        Raises:
            TransportError: What was in the way.
        """
        if not self.is_settled:
            raise not_connected(timeout, self.failure)
        self.check_open()
        if self.failure is not None and self.gave_up:
            raise self.failure.again()

    def wait_for_session(self, timeout: float | None) -> None:
        """Wait until there is a session, without the lock held; see ``check_session``."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_settled, timeout)
            self.check_session(timeout)

    def pause(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Wait for some time, or until the client is closed, or ``end_pauses`` is called and ``is_over``."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or is_over(), seconds)

    def end_pauses(self) -> None:
        """Have each thread in ``pause`` look whether it is over."""
        if not self.is_foreign():  # else there is no such thread, and the lock may be locked for ever
            with self._changed:
                self._changed.notify_all()

    @contextmanager
    def watched(self, changed: Callable[[], object]) -> Iterator[None]:
        """Have ``changed`` called at each change within the block, by the leader or by who closes the client."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def opened(self, session: Session) -> None:
        """Note a new session."""
        self.session, self.failure, self.gave_up = session, None, False
        self._notify()

    def failed(self, error: TransportError, *, is_final: bool) -> None:
        """Note that an attempt to connect failed."""
        self.failure, self.gave_up = error, is_final
        self._notify()

    def close(self) -> None:
        """Note that the client is closed."""
        self.closed = True
        self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        for changed in self._watchers:
            changed()
