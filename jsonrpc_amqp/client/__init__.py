"""
The client side: the public client, its requests, deadlines, retries and reply bindings.

May import: ``errors``, ``context``, ``options``, ``jsonrpc``, ``wire``, ``dialects``, ``amqp``,
``runtime``. Never ``server``.
"""

from .batch import Batch
from .call_options import Options
from .calls import Calls
from .client import Client
from .middleware import AsyncClientMiddleware, ClientMiddleware, OutgoingRequest, per_attempt

__all__ = [
    "AsyncClientMiddleware",
    "Batch",
    "Calls",
    "Client",
    "ClientMiddleware",
    "Options",
    "OutgoingRequest",
    "per_attempt",
]
