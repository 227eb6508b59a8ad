"""
Requests, notifications and batches -> bytes; bytes -> responses, checked (pure; the only import of jsonrpcclient).

jsonrpcclient makes the request objects. It does not check responses (one with both a result and an error is ``Ok``,
and an unrelated object is a ``KeyError``), so each response is checked here before jsonrpcclient parses it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jsonrpcclient
from jsonrpcclient import Error, Ok

from ..errors import MalformedReply, RemoteError, remote_error
from ..options import MAX_BATCH
from .params import Params, plain
from .text import Malformed, TooManyMembers, dumps, loads

__all__ = ["Error", "Ok"]

Response = Ok | Error
ExceptionFor = Callable[[Error], RemoteError]

_LONGEST_QUOTE = 80
_PLAIN_PARAMS = frozenset((list, tuple, dict))


class Kind(NamedTuple):
    """
    What a request body is.

    Attributes:
        is_notification: It gets no reply.
        id: The id of a single call; None for everything else.
    """

    is_notification: bool
    id: Any


# -- out ------------------------------------------------------------------------------------------------------


def request_object(method: str, params: Params, id: Any) -> dict[str, Any]:
    """
    Return a request object.

    Raises:
        TypeError: The method is no string, or params are no sequence or mapping, or are a text.
    """
    # Always with an id: jsonrpcclient's id generators are shared by all threads, and start again in every process.
    made: dict[str, Any] = jsonrpcclient.request(_checked(method), plain(params), id=id)
    return made


def notification_object(method: str, params: Params) -> dict[str, Any]:
    """Return a notification object; raises as ``request_object`` does."""
    made: dict[str, Any] = jsonrpcclient.notification(_checked(method), plain(params))
    return made


def request(method: str, params: Params, id: Any) -> bytes:
    """
    Write a request.

    Raises:
        TypeError: See ``request_object``.
        EncodeError: A value has no form in JSON.
    """
    if type(method) is str and method and type(params) in _PLAIN_PARAMS and params:
        # The same bytes in half the time.
        return dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": id})
    return dumps(request_object(method, params, id))


def notification(method: str, params: Params) -> bytes:
    """Write a notification; raises as ``request`` does."""
    return dumps(notification_object(method, params))


def encode(requests: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    """
    Write request objects: one, or a list of them.

    Raises:
        EncodeError: A value has no form in JSON.
    """
    return dumps(requests)


def classify(body: bytes) -> Kind:
    """Return what a body is. Anything but a valid notification gets a reply: an error, if it is invalid."""
    try:
        return kind_of(loads(body))
    except Malformed:
        return Kind(False, None)


def kind_of(value: Any) -> Kind:
    """Return what a body is, given the JSON value in it; see ``classify``."""
    if isinstance(value, list):
        return Kind(bool(value) and all(map(is_notification, value)), None)
    if is_notification(value):
        return Kind(True, None)
    return Kind(False, value.get("id") if isinstance(value, dict) else None)


def is_notification(value: Any) -> bool:
    """Whether a member of a batch, or a single value, is a valid notification."""
    return (
        isinstance(value, dict)
        and "id" not in value
        and value.get("jsonrpc") == "2.0"
        and isinstance(value.get("method"), str)
        and isinstance(value.get("params", []), (list, dict))
    )


def _checked(method: str) -> str:
    if not isinstance(method, str) or not method:
        raise TypeError(f"a method's name is a non-empty string, not {method!r}")
    return method


# -- in -------------------------------------------------------------------------------------------------------


def parse_response(body: bytes, expected_id: Any) -> Response:
    """
    Return the response to one call.

    Args:
        body: The reply.
        expected_id: The id that was sent; the response has this one.

    Raises:
        MalformedReply: The reply is no JSON-RPC 2.0 response to that id.
    """
    value = _read(body, max_members=MAX_BATCH)
    return _checked_response(value, expected_id, _names_id(value, expected_id))


def to_exception(error: Error) -> RemoteError:
    """Return the exception that stands for an error response, by its code."""
    exception = remote_error(error.code, error.message, error.data)
    exception.is_reply = True
    return exception


def result_of(body: bytes, expected_id: Any, exception_for: ExceptionFor = to_exception) -> Any:
    """
    Return the result of one call.

    Args:
        body: The reply.
        expected_id: The id that was sent.
        exception_for: Returns the exception for an error response.

    Raises:
        RemoteError: The response is an error.
        MalformedReply: See ``parse_response``.
    """
    value = _read(body, max_members=MAX_BATCH)
    if type(value) is dict and len(value) == 3 and value.get("jsonrpc") == "2.0" and "result" in value:
        id = value.get("id")
        if type(id) is type(expected_id) and id == expected_id:
            return value["result"]  # nearly all replies; the steps below find out what is wrong with the others
    response = _checked_response(value, expected_id, _names_id(value, expected_id))
    if isinstance(response, Ok):
        return response.result
    raise exception_for(response)


def text_of(body: bytes | None) -> str:
    """
    Return a reply as a text, for a library that reads it itself; an empty one if there is none.

    Raises:
        MalformedReply: It is not UTF-8.
    """
    try:
        return (body or b"").decode()
    except UnicodeDecodeError as exc:
        raise MalformedReply(f"the answer is not UTF-8: {exc}") from exc


def check_response(value: Any, expected_id: Any) -> dict[str, Any]:
    """
    Return a JSON value as it is, if it is a response to the call with this id, or an error with an id of null.

    Raises:
        MalformedReply: It is not.
    """
    return _checked_object(value, _names_id(value, expected_id))


def most_members(ids: Sequence[Any]) -> int:
    """Return how many responses a reply to these calls may have; those that were not asked for are ignored."""
    return len(ids) + MAX_BATCH


def match(
    ids: Sequence[Any], members: Iterable[dict[str, Any]]
) -> tuple[list[dict[str, Any] | None], list[dict[str, Any]]]:
    """
    Return the response to each id, None where there is none; and further members with an id of null.

    Args:
        ids: Those of the calls. If one occurs more than once, its responses are taken in their order.
        members: Of the reply. Only ids that were asked are kept: a peer chooses the others.
    """
    places: defaultdict[Any, deque[int]] = defaultdict(deque)
    for place, id in enumerate(ids):
        places[_id_key(id)].append(place)
    responses: list[dict[str, Any] | None] = [None] * len(ids)
    strays = []
    for member in members:
        id = member.get("id")
        left = places.get(_id_key(id))
        if left:
            responses[left.popleft()] = member
        elif id is None:
            strays.append(member)
    return responses, strays


def _id_key(id: Any) -> Any:
    """Return a key that is equal for ids that are equal in JSON: 1 and 1.0 are, 1 and true are not."""
    if id is None or isinstance(id, str):
        return id
    if isinstance(id, bool):
        return ("bool", id)
    if not isinstance(id, (int, float)):
        return ("no id",)  # an array or an object
    if isinstance(id, float) and not id.is_integer():
        return ("number", repr(id))
    # Not the number itself: a peer can choose numbers with the same hash, which is not random, as that of texts is.
    # And not its decimal digits, which take quadratic time.
    return ("number", hex(int(id)))


def parse_batch(body: bytes, ids: Sequence[Any]) -> list[Response | MalformedReply]:
    """
    Return the responses to a batch.

    Args:
        body: The reply.
        ids: The ids of the calls in the batch, in order.

    Returns:
        For each id its response, matched by id, or a ``MalformedReply`` if it is missing or invalid. A single error,
        which servers send for a batch that they reject as a whole, stands for every id.

    Raises:
        MalformedReply: The reply is neither an array nor a single error.
    """
    value = _read(body, max_members=most_members(ids))
    if isinstance(value, dict):
        error = _checked_response(value, None, True)
        if isinstance(error, Ok):
            raise MalformedReply("a batch was answered with a single result")
        return [Error(error.code, error.message, error.data, id) for id in ids]
    if not isinstance(value, list):
        raise MalformedReply(f"a batch was answered with {_quote(value)}, not an array")
    matched, _strays = match(ids, (member for member in value if isinstance(member, dict)))
    others = len(value) - sum(member is not None for member in matched)
    return [_member(member, id, others) for id, member in zip(ids, matched, strict=True)]


def _member(member: Any, id: Any, others: int) -> Response | MalformedReply:
    if member is None:
        return MalformedReply(
            f"the answer to the batch has no member for id {_quote(id)}, and {others} for ids that were not asked for"
        )
    try:
        return _checked_response(member, id, True)
    except MalformedReply as malformed:
        return malformed


def _read(body: bytes, *, max_members: int | None = None) -> Any:
    try:
        return loads(body, max_members=max_members)
    except TooManyMembers as exc:
        raise MalformedReply(f"the answer is {exc}") from exc
    except Malformed as exc:
        raise MalformedReply(f"the answer is not JSON: {exc}") from exc


def _names_id(value: Any, expected: Any) -> bool:
    """Whether a response has an id that is equal in JSON: 1 and 1.0 are, 1 and true are not."""
    if not isinstance(value, dict) or "id" not in value:
        return False
    id = value["id"]
    return bool(id == expected) and isinstance(id, bool) == isinstance(expected, bool)


def _checked_response(value: Any, id: Any, id_agrees: bool) -> Response:
    response = _checked_object(value, id_agrees)
    # Use the id that was sent: the response may have 1.0 for 1, or null.
    response["id"] = id
    parsed: Response = jsonrpcclient.parse(response)  # type: ignore[assignment]  # of one response, not of several
    return parsed


def _checked_object(value: Any, id_agrees: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedReply(f"the answer is {_quote(value)}, not an object")
    if value.get("jsonrpc") != "2.0":
        raise MalformedReply(f'the answer has jsonrpc {_quote(value.get("jsonrpc"))}, not "2.0"')
    if ("result" in value) == ("error" in value):
        raise MalformedReply("the answer must have exactly one of result and error")
    if "id" not in value:
        raise MalformedReply("the answer has no id")
    is_error = "error" in value
    # A server that could not read the request's id responds with null (section 5).
    if not id_agrees and not (is_error and value["id"] is None):
        raise MalformedReply(f"the answer has the id {_quote(value['id'])}, which was not asked for")
    if is_error:
        _check_error(value["error"])
    return value


def _check_error(error: Any) -> None:
    if not isinstance(error, dict):
        raise MalformedReply(f"the answer's error is {_quote(error)}, not an object")
    if type(error.get("code")) is not int:
        raise MalformedReply(f"the answer's error has the code {_quote(error.get('code'))}, not an integer")
    if not isinstance(error.get("message"), str):
        raise MalformedReply(f"the answer's error has the message {_quote(error.get('message'))}, not a string")


def _quote(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    text = ascii(value[:_LONGEST_QUOTE] if isinstance(value, str) else value)  # escaped, it may take ten times its size
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
