"""
What a request body requests, and the errors that reply to it (pure).

For bridges, gateways and adapters of other libraries, which pass bodies on without running a method. They must know
which ids await a response, to respond in place of a peer that does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, RemoteError
from ..options import MAX_BATCH, MAX_DEPTH
from .messages import is_notification
from .text import Malformed, dumps, loads

log = logging.getLogger("jsonrpc_amqp.server")

_ID_TYPES = (str, int, float)


class Requested(NamedTuple):
    """
    What a body requests.

    Attributes:
        ids: The ids of its calls, in order; None for a call without a usable id.
        is_batch: The reply is an array.
    """

    ids: tuple[Any, ...]
    is_batch: bool

    @property
    def is_notification(self) -> bool:
        """Whether no response is awaited."""
        return not self.ids


UNREADABLE = Requested((None,), False)


def read(body: bytes, *, max_batch: int = MAX_BATCH, max_depth: int = MAX_DEPTH) -> Requested:
    """
    Return what a body requests. An invalid request counts as a call: it gets an error.

    Raises:
        RemoteError: The response to the whole body, with an id of null: it is no JSON or nested too deep (-32700), or a
            batch with too many members (-32600).
    """
    try:
        value = loads(body, max_depth=max_depth)
    except Malformed as exc:
        raise RemoteError(PARSE_ERROR, "Parse error", str(exc)) from exc
    if not isinstance(value, list):
        return Requested(() if is_notification(value) else (_id(value),), False)
    if len(value) > max_batch:
        raise RemoteError(INVALID_REQUEST, "Invalid Request", f"a batch of {len(value)} is over the cap of {max_batch}")
    if not value:
        return UNREADABLE  # an empty batch gets a single error
    return Requested(tuple(_id(member) for member in value if not is_notification(member)), True)


def error(requested: Requested, error: RemoteError) -> bytes:
    """Write an error as the response to each call of a body; with an id of null if there is no call."""
    error_object = {"code": error.code, "message": error.message}
    if error.data is not None:
        error_object["data"] = error.data
    responses = [{"jsonrpc": "2.0", "error": error_object, "id": id} for id in requested.ids or (None,)]
    return dumps(responses if requested.is_batch and requested.ids else responses[0])


def is_response(body: bytes, *, max_depth: int = MAX_DEPTH) -> bool:
    """Whether bytes are a JSON-RPC response, or an array of responses, to any request."""
    try:
        value = loads(body, max_depth=max_depth)
    except Malformed:
        return False
    members = value if isinstance(value, list) else [value]
    return bool(members) and all(isinstance(each, dict) and ("result" in each or "error" in each) for each in members)


def dispatcher(
    dispatch: Callable[[str], str | None],
    *,
    max_batch: int = MAX_BATCH,
    max_depth: int = MAX_DEPTH,
) -> Callable[[bytes], bytes | None]:
    """
    Return a dispatcher for ``Server(dispatcher=...)`` that uses another library's, text -> text.

    The library gets no body that is not JSON, too deep or too long. What it raises is logged, and the response is
    -32603. Every call gets a response, even one that the library takes for a notification.

    Args:
        dispatch: Returns an empty text or None if there is nothing to reply.
        max_batch, max_depth: As for ``Server``.
    """

    def guarded(body: bytes) -> bytes | None:
        try:
            requested = read(body, max_batch=max_batch, max_depth=max_depth)
        except RemoteError as invalid:
            return error(UNREADABLE, invalid)
        failure = RemoteError(INTERNAL_ERROR, "Internal error", "no answer: this call was taken for a notification")
        try:
            reply = dispatch(body.decode())
        except Exception:
            log.exception("the dispatcher raised; callers get an internal error without details")
            reply, failure = None, RemoteError(INTERNAL_ERROR, "Internal error")
        if requested.is_notification:
            return None
        return reply.encode() if reply else error(requested, failure)

    return guarded


def _id(value: Any) -> Any:
    id = value.get("id") if isinstance(value, dict) else None
    return id if isinstance(id, _ID_TYPES) and not isinstance(id, bool) else None
