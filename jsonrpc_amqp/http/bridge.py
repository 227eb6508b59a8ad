"""
Serves a service by asking a JSON-RPC server over HTTP .

    with HttpBridge("http://127.0.0.1:8000/") as bridge:
        Server("amqp://", "example", dispatcher=bridge, concurrency=32).serve_forever()
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any

from .. import context
from ..errors import NOT_DELIVERED, RemoteError
from ..jsonrpc import inspection, labels
from ..options import MAX_SIZE, TIMEOUT
from ..runtime.dropped import DropWatch
from ..runtime.forks import close_when_forked
from ..wire.display import printable
from .headers import TOKEN, secrets_of
from .outage import Outage
from .upstream import HEADERS, URL, Answer, HttpFailure, Upstream, failure

log = logging.getLogger("jsonrpc_amqp.bridge")

_CLOSE_SECONDS = 5.0
# Of a caller's time, to tell it that the HTTP server cannot be reached.
_TO_TELL, _MOST_TO_TELL = 0.1, 1.0
_TOKEN = re.compile(TOKEN)


class _NotSent(Exception):
    """The HTTP server cannot be reached, and the request is not to wait for it here: it is given back."""


class HttpBridge:
    """
    A dispatcher that posts each request body once to an HTTP server, and returns the response body.

    All of a body stays as it is but the ids of its calls: the HTTP server sees others, which cannot be guessed, so that
    nothing that it sends late or besides passes for the response to another caller.

    A call without a JSON-RPC response, by its id, gets an error: ``NOT_DELIVERED``, or ``NO_ANSWER`` where the method
    may have run; responses to what was not requested are removed. A notification that was not accepted becomes a dead
    letter. A JSON-RPC body with an HTTP error status is a response like any other. Redirections are not followed. Any
    number of threads may use one bridge.

    While the HTTP server cannot be reached, requests wait: calls until their time is nearly up, notifications until it
    can be reached, or until the server that received them drains, which gives them back to the queue.

    Args:
        url: ``http://`` or ``https://``; the certificate is verified. User and password in it become basic
            authentication.
        timeout: Seconds for one HTTP request as a whole; less where its caller has less left.
        headers: HTTP headers for each request.
        max_size: Most bytes of a response body.

    Raises:
        ValueError: The URL, a header or the timeout is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        headers: Mapping[str, str] | None = None,
        max_size: int = MAX_SIZE,
    ) -> None:
        try:
            self._url = URL(url)
        except ValueError:
            # Without its text, which may have the password.
            raise ValueError(
                "the URL of the HTTP server is malformed: is its port no number up to 65535, or is a '/', '?', '#' or "
                "'@' in the password not escaped?"
            ) from None
        if self._url.scheme not in ("http", "https") or not self._url.host or self._url.port == 0:
            raise ValueError("a bridge leads to a URL such as http://127.0.0.1:8000/")
        if not timeout > 0:
            raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
        self._origin = printable(str(self._url.origin()))
        self._timeout = timeout
        # Header names are case-insensitive.
        own = {name.title(): value for name, value in _checked(headers or {}).items()}
        self._headers = {**HEADERS, **own}
        if (self._url.user, self._url.password) != (None, None) and "Authorization" in own:
            raise ValueError("either a user in the URL or a header Authorization, not both")
        self._max_size = max_size
        unusual = {name: value for name, value in own.items() if name not in HEADERS}
        self._secrets = secrets_of(unusual, self._url.user, self._url.password)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._thread: Upstream | None = None
        self._outage = Outage(self._origin)
        # Whether the HTTP server responds without ids, so that each request needs a connection of its own.
        self._lacks_ids = False
        self._closed = False
        self._watch: DropWatch | None = None
        close_when_forked(self)

    def __repr__(self) -> str:
        return f"<HttpBridge to {self._origin}>"

    def __call__(self, body: bytes) -> bytes | None:
        """
        Return the response to one request body; None for a notification.

        What goes wrong is a JSON-RPC error in the response; nothing is raised.
        """
        try:
            asked = inspection.read(body)
        except RemoteError as error:
            return inspection.error(inspection.UNREADABLE, error)
        try:
            response = self._forward(labels.label(body, asked, secrets.randbits(labels.BITS)))
        except _NotSent:
            self._give_back()
            return None
        except HttpFailure as error:
            return self._report_failure(asked, error)
        self._count("answered")
        return response

    @property
    def failures(self) -> int:
        """The number of bodies without a response, or with one to some calls only; a ``Server`` counts them, too."""
        return self._counts["failed"] + self._counts["incomplete"]

    def stats(self) -> dict[str, int]:
        """
        Return counters since the start.

        They count bodies: ``answered``, ``incomplete`` (of these: calls in it had no valid response), ``failed``,
        ``lost_notifications`` (of these), ``given_back`` to the queue, because they could not be sent before the server
        drained; and ``outages``: how often the HTTP server could not be reached any more.
        """
        with self._lock:
            counts = dict.fromkeys(("answered", "incomplete", "failed", "lost_notifications", "given_back"), 0)
            return {**counts, **self._counts, "outages": self._outage.count}

    def close(self) -> None:
        """Cancel requests in flight, which end in errors, and close the connections."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            thread.join(_CLOSE_SECONDS)

    def close_in_child(self) -> None:
        """Have a forked process begin with a thread of its own; another thread may have held the lock at the fork."""
        self._lock = threading.Lock()
        self._outage = Outage(self._origin)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close_in_child()

    def __enter__(self) -> HttpBridge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- on the thread of a handler ----------------------------------------------------------------------

    def _forward(self, sent: labels.Labelled) -> bytes | None:
        """Post a body, and return the response; wait for the HTTP server before, if it cannot be reached."""
        if self._thread is not None and self._thread.is_current():  # a log handler
            raise HttpFailure(NOT_DELIVERED, "the bridge was called by its own thread, which would wait for itself")
        request = context.current_or_none()
        until = time.monotonic() + self._patience(sent.requested, request)
        error: HttpFailure | None = None
        while True:
            attempt = self._outage.admit(until, lambda: self._is_wanted(request))
            if attempt is None:
                if self._closed:
                    raise self._closed_failure()
                if not self._is_wanted(request):
                    raise _NotSent
                raise error or failure(False, "cannot be reached")
            try:
                answer = self._post(sent, request, until)
            except HttpFailure as exc:
                if not exc.is_unreached:
                    self._outage.reached()
                    raise
                error = exc
                self._outage.failed(attempt, exc.message)
                continue
            except BaseException:
                self._outage.reached()  # so that another one tries
                raise
            self._outage.reached()
            return self._check(sent, answer)

    def _patience(self, asked: inspection.Requested, request: context.Request | None) -> float:
        """Return the seconds that a request may wait to be sent."""
        left = None if request is None else request.remaining
        if asked.is_notification and request is not None:
            return math.inf if left is None else left
        if left is None or left >= self._timeout:
            return self._timeout
        return left - min(left * _TO_TELL, _MOST_TO_TELL)

    def _is_wanted(self, request: context.Request | None) -> bool:
        return not self._closed and (request is None or request.envelope.is_wanted)

    def _closed_failure(self) -> HttpFailure:
        return HttpFailure(NOT_DELIVERED, f"the bridge to {self._origin} is closed")

    def _post(self, sent: labels.Labelled, request: context.Request | None, until: float) -> Answer:
        left = None if request is None else request.remaining
        timeout = self._timeout if left is None else min(left, self._timeout)
        connect_timeout = min(timeout, until - time.monotonic())
        alone = self._lacks_ids or not sent.requested.has_ids_alone
        return self._wait_for(lambda thread: thread.post(sent.body, timeout, connect_timeout, alone=alone))

    def _wait_for(self, exchange: Callable[[Upstream], Coroutine[Any, Any, Answer]]) -> Answer:
        with self._lock:
            thread = self._running_thread()
            future = asyncio.run_coroutine_threadsafe(exchange(thread), thread.loop)
        try:
            return future.result()
        except CancelledError:
            raise failure(True, "had not answered when the bridge was closed") from None

    def _running_thread(self) -> Upstream:
        if self._closed:
            raise self._closed_failure()
        thread = self._thread
        if thread is None or not thread.is_alive():  # it may have ended otherwise than by close()
            try:
                thread = self._thread = Upstream(self._url, self._origin, self._headers, self._max_size, self._secrets)
            except Exception as exc:
                raise HttpFailure(NOT_DELIVERED, f"the bridge can have no thread, or no open file: {exc}") from exc
            advice = "call close(), or use it in a with block"
            self._watch = DropWatch(f"HttpBridge to {self._origin}", advice, thread.is_open, thread.stop)
        return thread

    def _check(self, sent: labels.Labelled, answer: Answer) -> bytes | None:
        """Return the response to a body with this HTTP response; raise ``HttpFailure`` if there is none."""
        asked, is_right = sent.requested, False
        try:
            if asked.is_notification:
                if answer.status >= 300:
                    raise answer.failure(f"answered with HTTP status {answer.status}")
                return None
            absent = failure(True, "gave no valid response to this call, only to others of its batch")
            repaired = inspection.repair(asked, answer.body, absent, by_id_alone=not answer.is_first)
            self._lacks_ids |= repaired.lacks_ids and asked.has_ids_alone
            if repaired.missing == len(asked.ids):
                raise answer.failure(answer.fault)
            is_right = repaired.body is answer.body
        finally:
            answer.release(is_right)
        if repaired.missing:
            self._count("incomplete")
            log.warning(
                "%s: no valid response to %d of %d calls of a batch", self._origin, repaired.missing, len(asked.ids)
            )
        return labels.restore(sent, repaired.body)

    def _give_back(self) -> None:
        log.info("%s cannot be reached; a request goes back to its queue", self._origin)
        self._count("given_back")
        request = context.current_or_none()
        if request is not None:
            request.envelope.give_back()

    def _report_failure(self, asked: inspection.Requested, error: HttpFailure) -> bytes | None:
        if not asked.is_notification:
            log.warning("%s%s; %d calls get this error", error.message, error.details, len(asked.ids))
            self._count("failed")
            return inspection.error(asked, error)
        log.error("%s%s; a notification is lost, unless the queue has dead letters", error.message, error.details)
        self._count("failed")
        self._count("lost_notifications")
        request = context.current_or_none()
        if request is not None:
            request.envelope.dead_letter()
        return None

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers; raise ``ValueError`` if one cannot be sent."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{printable(name)} is no name of an HTTP header")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of HTTP header {name} is not printable ASCII")
    return headers
