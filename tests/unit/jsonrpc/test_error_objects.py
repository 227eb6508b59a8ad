"""Responses that are made without a dispatcher."""

from __future__ import annotations

import json

from jsonrpc_amqp.jsonrpc.error_objects import error_response, internal_error, too_large

from .tools import check_error


def test_responses_to_what_never_got_here() -> None:
    check_error(json.loads(too_large(20, 10)), -32600, None, data="the request has 20 bytes, over the cap of 10")
    check_error(json.loads(internal_error()), -32603, None)
    check_error(json.loads(internal_error("why")), -32603, None, data="why")


def test_data_is_optional() -> None:
    assert error_response(1, -32700) == {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": 1}
    assert error_response(None, -32700, None)["error"]["data"] is None
