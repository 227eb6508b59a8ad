"""
What a request body requests, whether a reply answers it, and the errors that do otherwise (pure).

For bridges, gateways and adapters of other libraries, which pass bodies on without running a method. They must know
which ids await a response, to respond in place of a peer that does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import INVALID_REQUEST, PARSE_ERROR, MalformedReply, RemoteError
from ..options import MAX_BATCH, MAX_DEPTH, MAX_METHOD
from .foreign import ForeignDispatcher
from .messages import check_response, is_notification, match, most_members
from .text import Malformed, TooManyMembers, dumps, loads

_ID_TYPES = (str, int, float)


class Requested(NamedTuple):
    """
    What a body requests.

    Attributes:
        ids: The ids of its calls, in order; None for a call without a usable id.
        is_batch: The reply is an array.
        is_version_2: False for a single request of another version, whose response need not be JSON-RPC 2.0 either.
    """

    ids: tuple[Any, ...]
    is_batch: bool
    is_version_2: bool = True

    @property
    def is_notification(self) -> bool:
        """Whether no response is awaited."""
        return not self.ids

    @property
    def has_ids_alone(self) -> bool:
        """Whether each response that is awaited has an id, by which it is known."""
        return self.is_version_2 and bool(self.ids) and None not in self.ids


UNREADABLE = Requested((None,), False)


class Repaired(NamedTuple):
    """
    A reply with one response for each call.

    Attributes:
        body: The reply, unchanged if nothing was wrong with it.
        missing: How many calls had no response, or a malformed one, and got an error in its place.
        lacks_ids: It has errors with an id of null.
    """

    body: bytes
    missing: int
    lacks_ids: bool


def read(body: bytes, *, max_batch: int = MAX_BATCH, max_depth: int = MAX_DEPTH) -> Requested:
    """
    Return what a body requests. An invalid request counts as a call: it gets an error.

    Raises:
        RemoteError: The response to the whole body, with an id of null: it is no JSON or nested too deep (-32700), or a
            batch with too many members (-32600).
    """
    try:
        value = loads(body, max_depth=max_depth, max_members=max_batch)
    except TooManyMembers as exc:
        data = f"the batch is over the cap of {max_batch} members"
        raise RemoteError(INVALID_REQUEST, "Invalid Request", data) from exc
    except Malformed as exc:
        raise RemoteError(PARSE_ERROR, "Parse error", str(exc)) from exc
    if not isinstance(value, list):
        is_version_2 = isinstance(value, dict) and value.get("jsonrpc") == "2.0"
        return Requested(() if is_notification(value) else (_id(value),), False, is_version_2)
    if not value:
        return UNREADABLE  # an empty batch gets a single error
    return Requested(tuple(_id(member) for member in value if not is_notification(member)), True)


def error(requested: Requested, error: RemoteError) -> bytes:
    """Write an error as the response to each call of a body; with an id of null if there is no call."""
    error_object = _error_object(error)
    responses = [{"jsonrpc": "2.0", "error": error_object, "id": id} for id in requested.ids or (None,)]
    return dumps(responses if requested.is_batch and requested.ids else responses[0])


def repair(
    requested: Requested, reply: bytes, failure: RemoteError, *, by_id_alone: bool = False, max_depth: int = MAX_DEPTH
) -> Repaired:
    """
    Make sure that the reply of another server has one response for each call, by id, and nothing else.

    A single error stands for all calls of a batch. As many errors with an id of null as there are calls without a
    response are taken for theirs, in order.

    Args:
        requested: What was requested: at least one call.
        reply: What the server sent.
        failure: The response to each call that has none in the reply, or a malformed one.
        by_id_alone: What has none of the ids, such as an error with an id of null, is no response to any call.
    """
    try:
        value = loads(reply, max_depth=max_depth, max_members=most_members(requested.ids))
    except Malformed:
        return Repaired(error(requested, failure), len(requested.ids), False)
    members = value if isinstance(value, list) else [value]
    lacks_ids = any(isinstance(each, dict) and "error" in each and each.get("id") is None for each in members)
    if not isinstance(value, list) or not requested.is_batch:
        is_known = not by_id_alone or (isinstance(value, dict) and _answers_one(requested.ids, value))
        is_response = is_known and _is_single(requested, value)
        missing = 0 if is_response else len(requested.ids)
        return Repaired(error(requested, failure) if missing else reply, missing, lacks_ids)
    responses, strays = _match(requested.ids, value)
    if None not in responses and len(value) == len(responses):
        return Repaired(reply, 0, lacks_ids)
    missing = responses.count(None)
    if missing == len(strays) and not by_id_alone:
        stray = iter(strays)
        responses = [each or next(stray) for each in responses]
        missing = 0
    failed = {"jsonrpc": "2.0", "error": _error_object(failure)}
    written = [{**(each or failed), "id": id} for each, id in zip(responses, requested.ids, strict=True)]
    return Repaired(dumps(written, max_depth=max_depth), missing, lacks_ids)


def dispatcher(
    dispatch: Callable[[str], str | bytes | None],
    *,
    max_batch: int = MAX_BATCH,
    max_depth: int = MAX_DEPTH,
    max_method: int = MAX_METHOD,
    max_size: int | None = None,
) -> ForeignDispatcher:
    """
    Return a dispatcher for ``Server(dispatcher=...)`` that uses another library's, text -> text.

    Args:
        dispatch: Given one valid request, it returns a response. The members of a batch come one after the other.
        max_batch, max_depth, max_method, max_size: See ``ForeignDispatcher``, which says what becomes of invalid
            requests, and of a library that raises or gives no valid response.
    """
    return ForeignDispatcher(
        dispatch, max_batch=max_batch, max_depth=max_depth, max_method=max_method, max_size=max_size
    )


def _error_object(error: RemoteError) -> dict[str, Any]:
    error_object = {"code": error.code, "message": error.message}
    return error_object if error.data is None else {**error_object, "data": error.data}


def _is_single(requested: Requested, value: Any) -> bool:
    """Whether a value is the response to the single call, or an error for the whole batch."""
    try:
        if requested.is_batch:
            return "error" in _checked(value)
        if requested.is_version_2 or not (isinstance(value, dict) and {"result", "error"} & value.keys()):
            check_response(value, requested.ids[0])
    except MalformedReply:
        return False
    return True


def _answers_one(ids: Sequence[Any], response: dict[str, Any]) -> bool:
    return response.get("id") is not None and any(match(ids, [response])[0])


def _match(ids: Sequence[Any], members: Sequence[Any]) -> tuple[list[dict[str, Any] | None], list[dict[str, Any]]]:
    """Return the response to each id, None where there is none; and further errors with an id of null."""
    responses, strays = match(ids, filter(None, map(_response_or_none, members)))
    return responses, [each for each in strays if "error" in each]


def _response_or_none(value: Any) -> dict[str, Any] | None:
    try:
        return _checked(value)
    except MalformedReply:
        return None


def _checked(value: Any) -> dict[str, Any]:
    """Return a value if it is a response, with any id; raise ``MalformedReply`` if it is none."""
    return check_response(value, value.get("id") if isinstance(value, dict) else None)


def _id(value: Any) -> Any:
    id = value.get("id") if isinstance(value, dict) else None
    return id if isinstance(id, _ID_TYPES) and not isinstance(id, bool) else None
