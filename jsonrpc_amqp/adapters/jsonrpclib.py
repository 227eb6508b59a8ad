"""
jsonrpclib-pelix: its ``ServerProxy`` calls over RabbitMQ, its ``SimpleJSONRPCDispatcher`` serves (its only import).

    proxy = ServerProxy("http://ignored/", transport=AmqpTransport(client))
    server = Server("amqp://", "example", dispatcher=dispatcher(SimpleJSONRPCDispatcher()))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..client.client import Calls, Options
from ..errors import MissingExtra
from ..jsonrpc import inspection

try:
    from jsonrpclib.SimpleJSONRPCServer import SimpleJSONRPCDispatcher
except ImportError as exc:
    raise MissingExtra(__name__, "jsonrpclib-pelix", "jsonrpclib") from exc

__all__ = ["AmqpTransport", "dispatcher"]


class AmqpTransport:
    """
    What a ``ServerProxy`` takes as its ``transport``. Its URL only has to begin with ``http://``.

    Headers of a proxy (``headers=``, ``_additional_headers``) become AMQP headers. As the library has it, a proxy with
    headers that change belongs to one thread; the client serves them all.

    Args:
        calls: A ``Client`` with a service, or what its ``with_options`` gives. It is not closed with the proxy.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._headers: list[Mapping[str, Any]] = []

    def request(self, host: str, handler: str, request_body: str, verbose: object = False) -> str:
        """
        Send a request or a batch; gives the answer, empty for notifications.

        Raises:
            TransportError: There is no answer.
        """
        headers = {name: str(value) for pushed in self._headers for name, value in pushed.items()}
        options: Options = {"headers": headers} if headers else {}
        answer = self._calls.send_raw(request_body.encode(), **options)
        return "" if answer is None else answer.decode()

    def push_headers(self, headers: Mapping[str, Any]) -> None:
        """Send these along until ``pop_headers``."""
        self._headers.append(headers)

    def pop_headers(self, headers: Mapping[str, Any]) -> None:
        """Take back what was pushed last."""
        pushed = self._headers.pop()
        assert pushed == headers, "headers are popped in the order in which they were pushed"

    def close(self) -> None:
        """Leave the client as it is: it is not the proxy's."""


def dispatcher(methods: SimpleJSONRPCDispatcher, **caps: int) -> Callable[[bytes], bytes | None]:
    """
    Make a ``Server``'s dispatcher of a ``SimpleJSONRPCDispatcher``. Several handlers call its functions at once.

    The library takes a call with an id of null or "" for a notification: such a call is run, and answered with -32603.

    Args:
        caps: ``max_batch``, ``max_depth``.
    """
    return inspection.dispatcher(methods._marshaled_dispatch, **caps)
