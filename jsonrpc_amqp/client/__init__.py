"""
The client side: the public client, its requests, deadlines, retries and reply bindings.

May import: ``errors``, ``context``, ``options``, ``jsonrpc``, ``wire``, ``dialects``, ``amqp``,
``runtime``. Never ``server``.
"""

from .batch import Batch
from .call_options import Options
from .calls import Calls
from .client import Client

__all__ = ["Batch", "Calls", "Client", "Options"]
