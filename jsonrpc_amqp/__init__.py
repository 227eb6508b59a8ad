"""JSON-RPC 2.0 over AMQP 0-9-1 (RabbitMQ): register methods as jsonrpcserver does, call them as jsonrpcclient does."""

from .client import Batch, Calls, Client, Options
from .context import Request, current_request
from .dead import DeadLetter, DeadLetters, Requeued
from .dispatch import Dispatcher, global_methods
from .errors import (
    DELIVERY_LIMIT_REACHED,
    NOT_AUTHORISED,
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
    MessageTooLarge,
    MethodNotFound,
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
)
from .logs import guard as _guard
from .server import Server

__version__ = "0.1.0"

__all__ = [
    "DELIVERY_LIMIT_REACHED",
    "NOT_AUTHORISED",
    "REDELIVERY_REFUSED",
    "AccessRefused",
    "Batch",
    "Blocked",
    "CallTimeout",
    "Calls",
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "DeadLetter",
    "DeadLetters",
    "Dispatcher",
    "EncodeError",
    "InternalError",
    "InvalidName",
    "InvalidParams",
    "InvalidRequest",
    "JsonRpcAmqpError",
    "MalformedReply",
    "MessageTooLarge",
    "MethodNotFound",
    "NoDeadLetter",
    "NotConnected",
    "NotRequeued",
    "Options",
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
    "current_request",
    "global_methods",
]

_guard()
