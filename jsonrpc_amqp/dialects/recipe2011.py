"""
The dialect of a recipe of 2011, "request-response over AMQP with Python and Java" (pure).

A request is ``{"q": VALUE, "qid": "q518"}``, an answer a bare JSON value at ``TOPIC.response.q518``, where TOPIC is
what we call a service. Without ``qid`` a request is one-way. There are no method names: a server maps all of them to
one. The recipe's programs read text: with another content type than ``text/plain`` its Python half parses JSON twice,
and fails.

It was taken from the programs themselves: IMessageBroker, AMQPRequestResponseImpl and their examples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import Signature
from typing import Any

from ..amqp.base import Delivery, Publish
from ..errors import INVALID_PARAMS, EncodeError
from ..jsonrpc.text import Malformed, dumps, loads
from ..wire.names import MAX_KEY_BYTES
from ..wire.publish import Address, QueueAddress
from ..wire.reply_route import Route
from . import Inbound, MalformedEnvelope, read_object

log = logging.getLogger("jsonrpc_amqp.dispatch")

TEXT = "text/plain"
# Whoever made it has bounded it.
_DEEP = 1_000_000


class RecipeServer:
    """
    Serves the recipe's requests with one method.

    Args:
        service: The first words of all keys.
        exchange: Where answers are published.
        method: The name of the method. It gets ``q`` as its only parameter, or nothing if it takes none.
        signature_of: Gives a method's signature; None: there is no such method.
    """

    def __init__(
        self, service: str, exchange: str, method: str, signature_of: Callable[[str], Signature | None]
    ) -> None:
        self._service = service
        self._exchange = exchange
        self._method = method
        self._signature_of = signature_of

    def problem(self) -> str | None:
        """Say why none of the recipe's requests could be served now; None: they can."""
        signature = self._signature_of(self._method)
        if signature is None:
            return f"there is no method {self._method!r} for the requests of the dialect recipe2011"
        if signature.parameters and not _takes_one(signature):
            return f"method {self._method!r} cannot be called with the one parameter of the dialect recipe2011"
        return None

    def read(self, delivery: Delivery, body: bytes) -> Inbound | None:
        value = read_object(body)
        if value is not None and "q" in value and "jsonrpc" not in value:
            return self._translate(value)
        if body.lstrip()[:1] == b"[" or (value is not None and "jsonrpc" in value):
            return None
        if delivery.correlation_id is not None or delivery.reply_to is not None:
            # No program of the recipe sends these, so somebody who speaks JSON-RPC awaits an error.
            return None
        raise MalformedEnvelope('neither JSON-RPC nor an object with "q"')

    def _translate(self, value: Mapping[str, Any]) -> Inbound:
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": self._method}
        signature = self._signature_of(self._method)
        if signature is None or signature.parameters:
            request["params"] = [value["q"]]
        route = None
        if value.get("qid") is not None:
            qid = _word(value["qid"])
            request["id"] = qid
            route = self._route(qid)
        # One level more than came: what is too deep is for the dispatcher to refuse.
        return Inbound(dumps(request, max_depth=_DEEP), self._bare, route, TEXT)

    def _bare(self, response: bytes) -> bytes:
        value = loads(response, max_depth=_DEEP)
        if "error" not in value:
            return dumps(value["result"], max_depth=_DEEP)
        if value["error"]["code"] == INVALID_PARAMS:
            # The recipe's programs print what comes and go on: this is where somebody may see it.
            log.warning("method %r did not take what a request of the dialect recipe2011 brought", self._method)
        return dumps({"error": value["error"]}, max_depth=_DEEP)

    def _route(self, qid: str) -> Route:
        # Not the request's own key: the recipe's Python half publishes all of its requests to "TOPIC.request.*".
        key = f"{self._service}.response.{qid}"
        if len(key.encode()) > MAX_KEY_BYTES:
            raise MalformedEnvelope(f"its qid makes a routing key over {MAX_KEY_BYTES} bytes")
        return Route(self._exchange, key, True)


class RecipeClient:
    """
    Calls a server of the recipe.

    The method's name is not sent; ``q`` is the only parameter, the object of parameters by name, or null.
    """

    def check(self, body: bytes) -> None:
        _question(body)

    def request(self, address: Address | QueueAddress, number: str, message: Publish) -> Publish:
        envelope: dict[str, Any] = {"q": _question(message.body)}
        if message.correlation_id is not None:
            # Not one word as the recipe's own, so that all answers come by the binding that is there.
            envelope["qid"] = f"{address.client}.{number}"
        # A server of the recipe is bound to "TOPIC.request.*": one word, no more and no less.
        return replace(
            message,
            routing_key=address.notification_key,
            body=dumps(envelope),
            persistent=True,
            content_type=TEXT,
        )

    def number(self, delivery: Delivery) -> str | None:
        return delivery.routing_key.rpartition(".")[2]

    def answer(self, request: bytes, body: bytes) -> bytes:
        try:
            value = loads(body)
        except Malformed:
            return body  # whoever reads it says what is wrong
        response: dict[str, Any] = {"jsonrpc": "2.0", "id": loads(request).get("id")}
        if _is_error(value):
            response["error"] = value["error"]
        else:
            response["result"] = value
        return dumps(response, max_depth=_DEEP)


def _word(qid: Any) -> str:
    if type(qid) is int:
        qid = str(qid) if abs(qid) < 10**64 else ""
    if not isinstance(qid, str) or not qid:
        raise MalformedEnvelope('its "qid" is neither a string nor an integer')
    return qid


def _takes_one(signature: Signature) -> bool:
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def _question(body: bytes) -> Any:
    value = read_object(body)
    if value is None or "method" not in value:
        raise EncodeError("the dialect of 2011 has a form for single calls and notifications only; nothing was sent")
    params = value.get("params")
    if isinstance(params, list):
        if len(params) > 1:
            raise EncodeError(f"the dialect of 2011 carries one parameter, not {len(params)}; nothing was sent")
        return params[0] if params else None
    return params


def _is_error(value: Any) -> bool:
    """Tell an error of ``RecipeServer`` from a result."""
    if not isinstance(value, dict) or list(value) != ["error"] or not isinstance(value["error"], dict):
        return False
    return type(value["error"].get("code")) is int and isinstance(value["error"].get("message"), str)
