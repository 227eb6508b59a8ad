"""
Another library's dispatcher, text -> text, behind the checks of our own (pure).

The library gets one valid request at a time, so that what it cannot do costs the others in a batch nothing: an invalid
member, a result that JSON cannot express, an exception that ends its own loop.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any

from ..context import current_or_none
from ..errors import INTERNAL_ERROR, MalformedReply
from ..options import MAX_BATCH, MAX_DEPTH, MAX_METHOD
from .dispatcher import Call, Dispatcher
from .error_objects import Response, error_response
from .messages import check_response
from .text import Malformed, dumps, loads

log = logging.getLogger("jsonrpc_amqp.server")

# The id that a library sees in place of one that libraries do not know what to do with.
_STAND_IN = 1


class NotBegun(Exception):
    """Raised in place of a response: the library did not begin the request, and will not. Another server may."""


class ForeignDispatcher:
    """
    A dispatcher for ``Server(dispatcher=...)`` over another library's.

    Invalid members of a body are answered as ours does, and never reach the library. Each call gets exactly one
    response, with its id: the library's, or -32603 where that is missing or malformed, or the library raised anything
    (``SystemExit`` included), which is logged. Calls whose id is null, empty or a fraction reach the library with
    another id, since some take them for notifications or refuse them.

    Any number of threads may call it at once.

    Args:
        dispatch: The library's; given one request, it returns a response. It need not return anything for a
            notification.
        max_batch: Most members of a batch.
        max_depth: Most arrays and objects inside one another, in a request and in a reply.
        max_method: Most bytes of a method's name.
        max_size: Most bytes of a request, and of a reply, whose responses are replaced by -32603 where they are too
            large; None: only the server's own cap holds, which replaces the reply as a whole.

    Raises:
        ValueError: A limit leaves no room for any reply.
    """

    def __init__(
        self,
        dispatch: Callable[[str], str | bytes | None],
        *,
        max_batch: int = MAX_BATCH,
        max_depth: int = MAX_DEPTH,
        max_method: int = MAX_METHOD,
        max_size: int | None = None,
    ) -> None:
        self._dispatch = dispatch
        self._max_depth = max_depth
        # It has no methods: only its first and its last step are used.
        self._own = Dispatcher(
            max_batch=max_batch,
            max_depth=max_depth,
            max_method=max_method,
            max_size=sys.maxsize if max_size is None else max_size,
        )
        self._failed_notifications = 0
        self._lock = Lock()

    @property
    def failures(self) -> int:
        """Error objects sent so far, and notifications on which the library raised."""
        return self._own.failures + self._failed_notifications

    def __call__(self, body: bytes) -> bytes | None:
        """Return the reply to one body; None if there is nothing to reply. Never raises."""
        decoded = self._own.decode(body)
        try:
            return self._own.encode(decoded, self._responses(decoded.members))
        except NotBegun:
            log.info("a request that the library did not begin is given back")
            request = current_or_none()
            if request is not None:
                request.envelope.give_back()
            return None

    def _responses(self, members: Iterable[Call | Response]) -> Iterator[Response | None]:
        has_begun = False
        for member in members:
            if not isinstance(member, Call):
                yield member
                continue
            try:
                yield self._run(member)
            except NotBegun as exc:
                if not has_begun:
                    raise
                # A part of the batch ran, so it must not run elsewhere.
                yield self._failed(member, f"it did not run: {exc}")
            has_begun = True

    def _run(self, call: Call) -> Response | None:
        try:
            reply = self._dispatch(dumps(_request(call), max_depth=self._max_depth).decode())
        except NotBegun:
            raise
        # BaseException: a method that calls sys.exit() has failed, and must not end the server's thread.
        except BaseException:
            log.exception("the library raised on method %.100r; a caller gets no details", call.method)
            return self._failed(call)
        if call.is_notification:
            return None
        try:
            response = check_response(self._read(reply), _known_id(call.id))
        except (Malformed, MalformedReply) as exc:
            log.error("the library gave no valid response to method %.100r: %s", call.method, exc)
            return self._failed(call, "no valid response")
        response["id"] = call.id
        return response

    def _read(self, reply: object) -> Any:
        if isinstance(reply, str):
            try:
                reply = reply.encode()
            except UnicodeEncodeError as exc:
                raise Malformed("it has lone surrogates") from exc
        if not isinstance(reply, bytes | None):
            raise Malformed(f"it is no text, but of type {type(reply).__name__}")
        if not reply:
            raise Malformed("there is none; perhaps the library takes the call for a notification")
        return loads(reply, max_depth=self._max_depth)

    def _failed(self, call: Call, *data: str) -> Response | None:
        if not call.is_notification:
            return error_response(call.id, INTERNAL_ERROR, *data)
        with self._lock:
            self._failed_notifications += 1
        return None


def _request(call: Call) -> dict[str, Any]:
    request: dict[str, Any] = {"jsonrpc": "2.0", "method": call.method}
    if call.params:
        request["params"] = call.params
    if not call.is_notification:
        request["id"] = _known_id(call.id)
    return request


def _known_id(id: str | int | float | None) -> str | int:
    """Return the id that the library sees."""
    if isinstance(id, int) or (isinstance(id, str) and id):
        return id
    return _STAND_IN
