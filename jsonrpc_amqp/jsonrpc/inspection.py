"""
What a request body asks for, and the errors that answer it (pure): for whoever hands bodies on and runs no method.

A bridge, a gateway or the dispatcher of another library sees bytes go by. It must know who awaits an answer to answer
in place of somebody who does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, RemoteError
from .messages import is_notification
from .text import Malformed, dumps, loads

log = logging.getLogger("jsonrpc_amqp.server")

MAX_BATCH = 1000
MAX_DEPTH = 100
_ID_TYPES = (str, int, float)


class Asked(NamedTuple):
    """
    What a body asks for.

    Attributes:
        ids: The ids of its calls, in order; None for those that have no usable one.
        is_batch: The answer is an array.
    """

    ids: tuple[Any, ...]
    is_batch: bool

    @property
    def is_notification(self) -> bool:
        """True when nobody awaits an answer."""
        return not self.ids


UNREADABLE = Asked((None,), False)


def read(body: bytes, *, max_batch: int = MAX_BATCH, max_depth: int = MAX_DEPTH) -> Asked:
    """
    Tell what a body asks for. What is no valid request asks as well: for an error.

    Raises:
        RemoteError: What answers it at once, with an id of null: it is no JSON or nested too deep (-32700), or a batch
            with too many members (-32600).
    """
    try:
        value = loads(body, max_depth=max_depth)
    except Malformed as exc:
        raise RemoteError(PARSE_ERROR, "Parse error", str(exc)) from exc
    if not isinstance(value, list):
        return Asked(() if is_notification(value) else (_id(value),), False)
    if len(value) > max_batch:
        raise RemoteError(INVALID_REQUEST, "Invalid Request", f"a batch of {len(value)} is over the cap of {max_batch}")
    if not value:
        return UNREADABLE  # one error answers an empty batch
    return Asked(tuple(_id(member) for member in value if not is_notification(member)), True)


def error(asked: Asked, error: RemoteError) -> bytes:
    """Write an error as the answer to each call of a body, or to nobody in particular where it has none."""
    told = {"code": error.code, "message": error.message}
    if error.data is not None:
        told["data"] = error.data
    answers = [{"jsonrpc": "2.0", "error": told, "id": id} for id in asked.ids or (None,)]
    return dumps(answers if asked.is_batch and asked.ids else answers[0])


def is_answer(body: bytes, *, max_depth: int = MAX_DEPTH) -> bool:
    """Tell whether bytes are a JSON-RPC response, or an array of them. To whom, the one who asked has to check."""
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
    Make a dispatcher for ``Server(dispatcher=...)`` of one that another library has, text -> text.

    The library sees nothing that is no JSON, too deep or too long. What it raises is logged, and answered with -32603.
    Every call is answered, also one that the library takes for a notification.

    Args:
        dispatch: Gives an empty text or None where there is nothing to answer.
        max_batch, max_depth: As for ``Server``.
    """

    def guarded(body: bytes) -> bytes | None:
        try:
            asked = read(body, max_batch=max_batch, max_depth=max_depth)
        except RemoteError as refusal:
            return error(UNREADABLE, refusal)
        failure = RemoteError(INTERNAL_ERROR, "Internal error", "no answer: this call was taken for a notification")
        try:
            answer = dispatch(body.decode())
        except Exception:
            log.exception("the dispatcher raised; its callers are told no more than that")
            answer, failure = None, RemoteError(INTERNAL_ERROR, "Internal error")
        if asked.is_notification:
            return None
        return answer.encode() if answer else error(asked, failure)

    return guarded


def _id(value: Any) -> Any:
    id = value.get("id") if isinstance(value, dict) else None
    return id if isinstance(id, _ID_TYPES) and not isinstance(id, bool) else None
