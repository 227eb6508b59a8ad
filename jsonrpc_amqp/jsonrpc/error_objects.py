"""JSON-RPC 2.0 error objects, and the responses that carry them (pure)."""

from __future__ import annotations

from typing import Any

from ..errors import (
    DELIVERY_LIMIT_REACHED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_AUTHORISED,
    PARSE_ERROR,
    REDELIVERY_REFUSED,
)
from .text import dumps

Response = dict[str, Any]
"""One JSON-RPC response object: ``jsonrpc``, ``id``, and ``result`` or ``error``."""

# https://www.jsonrpc.org/specification#error_object
MESSAGES = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    REDELIVERY_REFUSED: "Redelivered: it may have run before, and is not run again",
    DELIVERY_LIMIT_REACHED: "Delivery limit reached: it came back too often, and is not run again",
    NOT_AUTHORISED: "Not authorised: it did not run",
}


def error_response(id: Any, code: int, *data: Any) -> Response:
    """
    Return an error response.

    Args:
        id: The id of the request; None where it is unknown.
        code: A key of ``MESSAGES``.
        data: At most one value, the error's ``data``.
    """
    error = {"code": code, "message": MESSAGES[code]}
    if data:
        (error["data"],) = data
    return {"jsonrpc": "2.0", "error": error, "id": id}


def too_large(size: int, max_size: int) -> bytes:
    """
    Write the response to a body that was discarded unread.

    Args:
        size: Its size in bytes.
        max_size: The largest size allowed, in bytes.
    """
    return dumps(error_response(None, INVALID_REQUEST, over_cap(size, max_size)))


def over_cap(size: int, max_size: int) -> str:
    """Return the error data for a request over the size cap."""
    return f"the request has {size} bytes, over the cap of {max_size}"


def internal_error(data: str | None = None) -> bytes:
    """Write the response to a request whose own response cannot be sent; its id is null."""
    return dumps(error_response(None, INTERNAL_ERROR, *(() if data is None else (data,))))
