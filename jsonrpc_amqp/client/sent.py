"""``send``: requests as jsonrpcclient makes them, and its responses (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ..errors import MalformedReply, RemoteError
from ..jsonrpc import messages
from ..jsonrpc.params import Params, plain
from .batch import checked_outcomes
from .middleware import OutgoingRequest

Single = Mapping[str, Any]
Requests = Single | Sequence[Single]
"""One request or notification, or a list of those."""
Responses = messages.Response | list[messages.Response] | None


def encode(request: Requests) -> bytes:
    """
    Return the body of what jsonrpcclient's ``request`` or ``notification`` returns, or of a list of those.

    Raises:
        TypeError: It is something else.
        EncodeError: It has no form in JSON.
    """
    if not isinstance(request, (Mapping, list, tuple)):
        raise TypeError(
            f"send takes what jsonrpcclient's request() gives, or a list of those, not {type(request).__name__}; "
            "send_raw takes bytes"
        )
    return messages.encode(request)


def parse(reply: bytes | None, request: Requests) -> Responses:
    """
    Return what ``send`` returns for the reply to a request.

    Raises:
        MalformedReply: It is no response to this request, or lacks a member.
    """
    if reply is None:
        return None
    if isinstance(request, Mapping):
        return messages.parse_response(reply, request.get("id"))
    complete: list[messages.Response] = []
    for response in messages.parse_batch(reply, ids_of(request)):
        if isinstance(response, MalformedReply):
            raise response
        complete.append(response)
    return complete


# -- with middleware ------------------------------------------------------------------------------------------------


def is_request(request: Requests) -> TypeGuard[Single]:
    """Whether it is one request or notification that names its method."""
    if not isinstance(request, Mapping) or not isinstance(request.get("method"), str):
        return False
    return "id" in request or messages.is_notification(dict(request))


def ids_of(requests: Sequence[Single]) -> list[Any]:
    """Return the ids of the calls in a list."""
    return [each["id"] for each in requests if "id" in each]


def members_of(requests: Sequence[Single]) -> tuple[tuple[str, Params], ...]:
    """Return the method and params of each request in a list."""
    return tuple((each.get("method", ""), each.get("params")) for each in requests)


def changed(request: Single, seen: OutgoingRequest) -> Single:
    """Return a request with the method and params that middleware has passed on."""
    made = {**request, "method": seen.method, "params": plain(seen.params)}
    if seen.params is None:
        del made["params"]
    return made


def respond(result: Any, request: Requests) -> Responses:
    """
    Return what ``send`` returns, where its middleware has returned ``result``.

    Raises:
        MalformedReply: The reply to a list lacks a member.
        TypeError: Middleware has returned something else for a list.
    """
    if is_request(request):
        return messages.Ok(result, request["id"]) if "id" in request else None
    if isinstance(request, Mapping):
        return parse(result, request)
    ids = ids_of(request)
    if result is None and not ids:
        return None
    return [_response(outcome, id) for outcome, id in zip(checked_outcomes(result, len(ids)), ids, strict=True)]


def respond_to_error(error: RemoteError, request: Requests) -> Responses:
    """Return what ``send`` returns for an error that its middleware has raised; or raise it: only a call has one."""
    if is_request(request) and "id" in request:
        return _response(error, request["id"])
    raise error


def _response(outcome: Any, id: Any) -> messages.Response:
    if isinstance(outcome, RemoteError):
        return messages.Error(outcome.code, outcome.message, outcome.data, id)
    if isinstance(outcome, BaseException):
        raise outcome
    return messages.Ok(outcome, id)
