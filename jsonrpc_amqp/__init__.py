"""JSON-RPC 2.0 over AMQP 0-9-1 (RabbitMQ): register methods as jsonrpcserver does, call them as jsonrpcclient does."""

import importlib
import typing
import warnings

from .application_errors import ApplicationError
from .client import AsyncClientMiddleware, Batch, Calls, Client, ClientMiddleware, Options, OutgoingRequest, per_attempt
from .context import AsyncCallNext, CallNext, Request, current_request
from .errors import (
    DELIVERY_LIMIT_REACHED,
    NO_ANSWER,
    NOT_AUTHORISED,
    NOT_DELIVERED,
    REDELIVERY_REFUSED,
    AccessRefused,
    Blocked,
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    EncodeError,
    InternalError,
    InvalidName,
    InvalidParams,
    InvalidRequest,
    JsonRpcAmqpError,
    MalformedReply,
    MaybeRejected,
    MessageRejected,
    MessageTooLarge,
    MethodNotFound,
    MissingExtra,
    NoConsumers,
    NoDeadLetter,
    NotConnected,
    NotRequeued,
    Overloaded,
    ParseError,
    RemoteError,
    ServerError,
    TooManyPending,
    TopologyMismatch,
    TransportError,
    Unroutable,
    WouldDeadlock,
    WrongEventLoop,
)
from .jsonrpc.marks import method, raises, rpc_name
from .logs import install as _install_log_filter
from .version import __version__ as __version__
from .wire.health import Health

if typing.TYPE_CHECKING:
    from .client.async_batch import AsyncBatch
    from .client.async_calls import AsyncCalls
    from .client.async_client import AsyncClient
    from .jsonrpc.dispatcher import Dispatcher, global_methods
    from .operator.dead_letters import DeadLetters, Requeued
    from .operator.letter import DeadLetter
    from .server.async_server import AsyncServer
    from .server.server import Server

__all__ = [
    "DELIVERY_LIMIT_REACHED",
    "NOT_AUTHORISED",
    "NOT_DELIVERED",
    "NO_ANSWER",
    "REDELIVERY_REFUSED",
    "AccessRefused",
    "ApplicationError",
    "AsyncBatch",
    "AsyncCallNext",
    "AsyncCalls",
    "AsyncClient",
    "AsyncClientMiddleware",
    "AsyncServer",
    "Batch",
    "Blocked",
    "CallNext",
    "CallTimeout",
    "Calls",
    "Client",
    "ClientClosed",
    "ClientMiddleware",
    "ConnectionLost",
    "DeadLetter",
    "DeadLetters",
    "Dispatcher",
    "EncodeError",
    "Health",
    "InternalError",
    "InvalidName",
    "InvalidParams",
    "InvalidRequest",
    "JsonRpcAmqpError",
    "MalformedReply",
    "MaybeRejected",
    "MessageRejected",
    "MessageTooLarge",
    "MethodNotFound",
    "MissingExtra",
    "NoConsumers",
    "NoDeadLetter",
    "NotConnected",
    "NotRequeued",
    "Options",
    "OutgoingRequest",
    "Overloaded",
    "ParseError",
    "RemoteError",
    "Request",
    "Requeued",
    "Server",
    "ServerError",
    "TooManyPending",
    "TopologyMismatch",
    "TransportError",
    "Unroutable",
    "WouldDeadlock",
    "WrongEventLoop",
    "current_request",
    "global_methods",
    "method",
    "per_attempt",
    "raises",
    "rpc_name",
]

# Imported on first use: importing jsonrpcserver takes longer than all other imports together, and a program that only
# calls does not need it; nor asyncio, if it has no event loop.
_LATER = {
    "AsyncBatch": "client.async_batch",
    "AsyncCalls": "client.async_calls",
    "AsyncClient": "client.async_client",
    "AsyncServer": "server.async_server",
    "DeadLetter": "operator.letter",
    "DeadLetters": "operator.dead_letters",
    "Dispatcher": "jsonrpc.dispatcher",
    "Requeued": "operator.dead_letters",
    "Server": "server.server",
    "global_methods": "jsonrpc.dispatcher",
}


# Modules that have moved; each old name goes with the next minor version.
_MOVED = {"bodies": "jsonrpc.inspection"}


def __getattr__(name: str) -> typing.Any:
    if name in _MOVED:
        moved = f"{__name__}.{_MOVED[name]}"
        warnings.warn(f"{__name__}.{name} is {moved} now", DeprecationWarning, stacklevel=2)
        return importlib.import_module(moved)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_install_log_filter()
