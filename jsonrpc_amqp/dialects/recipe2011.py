"""
The dialect of a recipe of 2011, "request-response over AMQP with Python and Java" (pure).

A request is ``{"q": VALUE, "qid": "q518"}``, a reply is a bare JSON value with the key ``TOPIC.response.q518``, where
TOPIC is the service. A request without ``qid`` is one-way. There are no method names: a server runs one method for all
requests. The recipe's programs expect text: with a content type other than ``text/plain`` its Python half parses JSON
twice, and fails.

The dialect follows the sources of those programs: IMessageBroker, AMQPRequestResponseImpl and their examples.
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
from ..wire.sender_checks import client_of
from . import Inbound, MalformedEnvelope, read_object

log = logging.getLogger("jsonrpc_amqp.dispatch")

TEXT = "text/plain"
# Where the depth was limited already, or the dispatcher will check it.
_ANY_DEPTH = 1_000_000


class RecipeServer:
    """
    Serves the recipe's requests with one method.

    Args:
        service: The first words of all keys.
        exchange: Where replies are published.
        method: The name of the method. It gets ``q`` as its only parameter, or nothing if it takes none.
        signature_of: Returns a method's signature, or None if there is no such method.
    """

    def __init__(
        self, service: str, exchange: str, method: str, signature_of: Callable[[str], Signature | None]
    ) -> None:
        self._service = service
        self._exchange = exchange
        self._method = method
        self._signature_of = signature_of

    def problem(self) -> str | None:
        """Return why none of the recipe's requests can be served now, or None if they can."""
        signature = self._signature_of(self._method)
        if signature is None:
            return f"there is no method {self._method!r} for the requests of the dialect recipe2011"
        if signature.parameters and not _takes_one(signature):
            return f"method {self._method!r} cannot be called with the one parameter of the dialect recipe2011"
        return None

    def read(self, delivery: Delivery, body: bytes) -> Inbound | None:
        value = read_object(body)
        if value is not None and "q" in value and "jsonrpc" not in value:
            return self._translate(value, delivery)
        if body.lstrip()[:1] == b"[" or (value is not None and "jsonrpc" in value):
            return None
        if delivery.correlation_id is not None or delivery.reply_to is not None:
            # No program of the recipe sends these properties, so a JSON-RPC client awaits an error.
            return None
        raise MalformedEnvelope('neither JSON-RPC nor an object with "q"')

    def _translate(self, value: Mapping[str, Any], delivery: Delivery) -> Inbound:
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": self._method}
        signature = self._signature_of(self._method)
        if signature is None or signature.parameters:
            request["params"] = [value["q"]]
        route, is_to_sender = None, False
        if value.get("qid") is not None:
            qid = _word(value["qid"])
            request["id"] = qid
            route = self._route(qid)
            named = client_of(qid, delivery)
            if named is False:
                raise MalformedEnvelope("its qid names a client that did not send it, who would get the reply")
            is_to_sender = named is True and delivery.user_id is not None
        # One level deeper than the message; the dispatcher rejects what is too deep.
        return Inbound(dumps(request, max_depth=_ANY_DEPTH), self._reply, route, TEXT, is_to_sender)

    def _reply(self, response: bytes) -> bytes:
        value = loads(response, max_depth=_ANY_DEPTH)
        if "error" not in value:
            return dumps(value["result"], max_depth=_ANY_DEPTH)
        if value["error"]["code"] == INVALID_PARAMS:
            # The recipe's programs print the error and go on, so it is logged here, too.
            log.warning("method %r did not take what a request of the dialect recipe2011 brought", self._method)
        return dumps({"error": value["error"]}, max_depth=_ANY_DEPTH)

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
            # Two words, unlike the recipe's own, so that all replies match the client's existing binding.
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

    def response(self, request: bytes, body: bytes) -> bytes:
        try:
            value = loads(body)
        except Malformed:
            return body  # parsing it as a response raises an error that says what is wrong
        response: dict[str, Any] = {"jsonrpc": "2.0", "id": loads(request).get("id")}
        if _is_error(value):
            response["error"] = value["error"]
        else:
            response["result"] = value
        return dumps(response, max_depth=_ANY_DEPTH)


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
    """
    Return the value of ``q`` for a JSON-RPC request.

    Raises:
        EncodeError: The dialect has no form for it.
    """
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
    """Whether a reply is an error of ``RecipeServer``, not a result."""
    if not isinstance(value, dict) or list(value) != ["error"] or not isinstance(value["error"], dict):
        return False
    return type(value["error"].get("code")) is int and isinstance(value["error"].get("message"), str)
