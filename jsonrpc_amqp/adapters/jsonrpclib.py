"""
jsonrpclib-pelix: its ``ServerProxy`` calls over RabbitMQ, its ``SimpleJSONRPCDispatcher`` serves (its only import).

    proxy = ServerProxy("http://ignored/", transport=AmqpTransport(client))
    server = Server("amqp://", "example", dispatcher=dispatcher(SimpleJSONRPCDispatcher()))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..client.call_options import Options
from ..client.calls import Calls
from ..errors import MissingExtra
from ..jsonrpc import inspection
from ..jsonrpc.messages import text_of

try:
    from jsonrpclib.SimpleJSONRPCServer import SimpleJSONRPCDispatcher
except ImportError as exc:
    raise MissingExtra(__name__, "jsonrpclib-pelix", "jsonrpclib") from exc

__all__ = ["AmqpTransport", "dispatcher"]


class AmqpTransport:
    """
    A ``transport`` for ``ServerProxy``. The proxy's URL is not used, but has to begin with ``http://``.

    Headers of a proxy (``headers=``, ``_additional_headers``) become AMQP headers. As in the library itself, only one
    thread may use a proxy whose headers change; any number of proxies may share the client.

    Args:
        calls: A ``Client`` with a service, or the result of its ``with_options``. The proxy does not close it.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._headers: list[Mapping[str, Any]] = []

    def request(self, host: str, handler: str, request_body: str, verbose: object = False) -> str:
        """
        Send a request or a batch, and return the reply, which is empty for notifications.

        Raises:
            TransportError: There is no reply.
        """
        headers = {name: str(value) for pushed in self._headers for name, value in pushed.items()}
        options: Options = {"headers": headers} if headers else {}
        return text_of(self._calls.send_raw(request_body.encode(), **options))

    def push_headers(self, headers: Mapping[str, Any]) -> None:
        """Add these to each request until ``pop_headers``."""
        self._headers.append(headers)

    def pop_headers(self, headers: Mapping[str, Any]) -> None:
        """Remove the headers that were pushed last."""
        pushed = self._headers.pop()
        assert pushed == headers, "headers are popped in the order in which they were pushed"

    def close(self) -> None:
        """Do nothing: the client does not belong to the proxy."""


def dispatcher(methods: SimpleJSONRPCDispatcher, **caps: int) -> Callable[[bytes], bytes | None]:
    """
    Return a dispatcher for a ``Server``. Several threads call the functions of ``methods`` at once.

    Args:
        caps: ``max_batch``, ``max_depth``, ``max_method``, ``max_size``: see ``jsonrpc.foreign.ForeignDispatcher``.
    """
    return inspection.dispatcher(methods._marshaled_dispatch, **caps)
