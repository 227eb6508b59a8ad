"""The first step of a dispatch: a body to checked requests (pure)."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from ..context import Request, current_envelope
from ..errors import INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from .error_objects import Response, error_response, over_cap
from .methods import is_longer
from .text import Malformed, TooManyMembers, loads

logger = logging.getLogger("jsonrpc_amqp.dispatch")

_ID_TYPES = frozenset({str, int, float, type(None)})


class Call(NamedTuple):
    """
    One valid request.

    Attributes:
        params: Positional (a list) or by name (a dict).
        id: As it came; None for a notification, and for a call with an id of null, which gets a response.
        is_notification: It had no ``id`` member, so it never gets a response.
    """

    method: str
    params: list[Any] | dict[str, Any]
    id: str | int | float | None
    is_notification: bool


class Decoded(NamedTuple):
    """
    What a body holds.

    Attributes:
        members: In order; in place of an invalid request stands the error response to it.
        is_batch: The reply is an array, whatever the number of members.
    """

    members: list[Call | Response]
    is_batch: bool


def decode(body: bytes, *, max_size: int, max_depth: int, max_batch: int, max_method: int) -> Decoded:
    """Read a body and check each request in it; an invalid one becomes the error response to send."""
    if len(body) > max_size:
        return _invalid_body(INVALID_REQUEST, over_cap(len(body), max_size))
    try:
        value = loads(body, max_depth=max_depth, max_members=max_batch)
    except TooManyMembers:
        return _invalid_body(INVALID_REQUEST, f"the batch is over the cap of {max_batch} members")
    except Malformed as exc:
        return _invalid_body(PARSE_ERROR, str(exc))
    if not isinstance(value, list):
        return Decoded([_member(value, max_method)], False)
    if not value:
        return _invalid_body(INVALID_REQUEST, "the batch is empty")
    return Decoded([_member(item, max_method) for item in value], True)


def request_of(call: Call) -> Request:
    """Return what the handler of a call sees as ``current_request()``."""
    return Request(call.method, call.id, call.is_notification, current_envelope(), call.params)


def method_of(member: Call | Response) -> str | None:
    """Return the method of a member, for logs; None of an invalid one."""
    return member.method if isinstance(member, Call) else None


def _member(value: Any, max_method: int) -> Call | Response:
    """Return a member of a batch (or the single request) as a call, or the error response to it."""
    if not isinstance(value, dict):
        return error_response(None, INVALID_REQUEST, "a request must be an object")
    id = value.get("id")
    if type(id) not in _ID_TYPES:
        return error_response(None, INVALID_REQUEST, "id must be a string, a number or null")
    problem = _problem(value)
    if problem is not None:
        return error_response(id, INVALID_REQUEST, problem)
    method = value["method"]
    if 4 * len(method) > max_method and is_longer(method, max_method):  # the first alone for nearly all
        # No method has such a name. A notification gets no reply to that, but one to what is no request.
        code = METHOD_NOT_FOUND if "id" in value else INVALID_REQUEST
        return error_response(id, code, f"method is over the cap of {max_method} bytes")
    return Call(method, value.get("params", []), id, "id" not in value)


def _problem(request: dict[str, Any]) -> str | None:
    """Return why an object is no request. Members that the specification does not know are ignored."""
    if request.get("jsonrpc") != "2.0":
        is_old = request.get("version") == "1.1"
        return 'jsonrpc must be "2.0"' + ("; for JSON-RPC 1.1 see the dialect rabbitmq-java" if is_old else "")
    if not isinstance(request.get("method"), str):
        return "method must be a string"
    if not isinstance(request.get("params", []), (list, dict)):
        return "params must be an array or an object"
    return None


def _invalid_body(code: int, data: str) -> Decoded:
    # It may hold notifications, whose sender sees no error, so it is logged.
    logger.warning("refused a body as a whole: %s", data)
    return Decoded([error_response(None, code, data)], False)
