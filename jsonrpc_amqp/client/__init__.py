"""
The client side: the public client, its requests, deadlines, retries and reply bindings.

May import: ``errors``, ``context``, ``options``, ``jsonrpc``, ``wire``, ``dialects``, ``amqp``,
``runtime``. Never ``server``.
"""

from .client import Batch, Calls, Client, Options

__all__ = ["Batch", "Calls", "Client", "Options"]
