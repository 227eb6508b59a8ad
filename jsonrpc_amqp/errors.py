"""
Everything that can go wrong, as one tree.

    JsonRpcAmqpError
    ├── RemoteError             the other side answered with a JSON-RPC error object
    │   ├── ParseError          -32700
    │   ├── InvalidRequest      -32600
    │   ├── MethodNotFound      -32601
    │   ├── InvalidParams       -32602
    │   ├── InternalError       -32603
    │   └── ServerError         -32000 to -32099
    ├── TransportError          no answer; ``may_have_run`` says whether the method may have run
    │   ├── NotConnected        never sent: no connection by the deadline
    │   ├── AccessRefused       never sent: the broker refused the user, or the operation to that user
    │   ├── TopologyMismatch    never sent: an exchange or queue exists with other properties, or is missing
    │   ├── Unroutable          never sent on: no queue is bound for the service
    │   ├── Overloaded          never sent on: the queue refused the message (nack)
    │   ├── Blocked             never sent: the broker blocks publishers (memory or disk alarm)
    │   ├── MessageTooLarge     never sent: over the size cap
    │   ├── TooManyPending      never sent: this client waits for as many calls as it may
    │   ├── ClientClosed        the client was closed, or belongs to another process
    │   ├── CallTimeout         no answer by the deadline
    │   ├── ConnectionLost      the connection went away before the answer
    │   └── MalformedReply      an answer came, and is not a JSON-RPC 2.0 response
    ├── NoDeadLetter            no dead letter has this key, or several have
    ├── NotRequeued             a dead letter that is not sent again: a call, whose caller is gone
    ├── InvalidName             a service or user name that cannot stand in a routing key
    ├── MissingExtra            a library is not installed that an optional part needs
    └── EncodeError             params or a result that JSON has no form for
"""

from __future__ import annotations

from typing import Any

# https://www.jsonrpc.org/specification#error_object
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR_MIN, SERVER_ERROR_MAX = -32099, -32000
# Ours, from that range.
REDELIVERY_REFUSED = -32001
DELIVERY_LIMIT_REACHED = -32002
NOT_AUTHORISED = -32003
NOT_DELIVERED = -32004
"""A bridge, a gateway or an adapter could not hand the request on: the method did not run."""
NO_ANSWER = -32005
"""It handed the request on, and has no answer: the method may have run."""


class JsonRpcAmqpError(Exception):
    """Base of every error that this library raises on purpose."""


class InvalidName(JsonRpcAmqpError, ValueError):
    """A service or user name breaks a rule of the wire contract; the message names the rule."""


class EncodeError(JsonRpcAmqpError, ValueError):
    """A value has no form in JSON (or is NaN, or too deep). Nothing was sent."""


class NoDeadLetter(JsonRpcAmqpError, LookupError):
    """No dead letter has this key, any more, or several have that begins so. Nothing was done."""


class NotRequeued(JsonRpcAmqpError):
    """A dead letter that was named is a call, or cannot be read, so it is not sent again. Nothing was done."""


class MissingExtra(JsonRpcAmqpError, ImportError):
    """A part of this package needs a library that is not installed; the message says which extra brings it."""

    def __init__(self, part: str, library: str, extra: str) -> None:
        super().__init__(f"{part} needs {library}: pip install 'jsonrpc-amqp[{extra}]'", name=library)


class RemoteError(JsonRpcAmqpError):
    """
    The server answered with a JSON-RPC error object.

    Attributes:
        code: The error's number; the specification reserves -32768 to -32000.
        message: One sentence by the server.
        data: What the server added, or None.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" + ("" if self.data is None else f": {self.data!r}")


class ParseError(RemoteError):
    """-32700: the server could not read the request as JSON."""


class InvalidRequest(RemoteError):
    """-32600: the JSON sent is not a JSON-RPC 2.0 request."""


class MethodNotFound(RemoteError):
    """-32601: the service has no such method. It did not run."""


class InvalidParams(RemoteError):
    """-32602: the parameters do not fit the method. It did not run."""


class InternalError(RemoteError):
    """-32603: the method raised, or its result could not be sent."""


class ServerError(RemoteError):
    """-32000 to -32099: an error that the server implementation defines."""


_BY_CODE: dict[int, type[RemoteError]] = {
    PARSE_ERROR: ParseError,
    INVALID_REQUEST: InvalidRequest,
    METHOD_NOT_FOUND: MethodNotFound,
    INVALID_PARAMS: InvalidParams,
    INTERNAL_ERROR: InternalError,
}


def remote_error(code: int, message: str, data: Any = None) -> RemoteError:
    """Give the exception class that stands for a JSON-RPC error object."""
    if SERVER_ERROR_MIN <= code <= SERVER_ERROR_MAX:
        return ServerError(code, message, data)
    return _BY_CODE.get(code, RemoteError)(code, message, data)


class TransportError(JsonRpcAmqpError):
    """
    There is no answer.

    Attributes:
        may_have_run: False only when it is certain that the method did not run because of this
            attempt, so that a retry cannot run it twice.
    """

    may_have_run = False

    def __init__(self, message: str, *, may_have_run: bool | None = None) -> None:
        super().__init__(message)
        if may_have_run is not None:
            self.may_have_run = may_have_run

    def again(self) -> TransportError:
        """Copy this error, so that each of several callers raises its own (a traceback belongs to one raise)."""
        copy = type(self)(str(self), may_have_run=self.may_have_run)
        copy.__cause__ = self.__cause__
        return copy


class NotConnected(TransportError, ConnectionError):
    """There was no connection to the broker by the deadline. Nothing was sent."""


class AccessRefused(TransportError, PermissionError):
    """The broker refused the user, or what the user asked for. Not retried by itself."""


class TopologyMismatch(TransportError):
    """An exchange or queue exists with other properties than asked for, or does not exist with ``declare=False``."""


class Unroutable(TransportError):
    """No queue took the request: no server of this service was ever set up here. It did not run."""


class Overloaded(TransportError):
    """
    The broker refused the message (``basic.nack``), as a full queue does that rejects. It did not run.

    With one exception, which the protocol does not tell from the rule: in a cluster, when the node of a *classic* queue
    dies, RabbitMQ refuses what it had not confirmed yet, and some of it may be in the queue when the node comes back.
    """


class Blocked(TransportError):
    """The broker does not read from publishers (a memory or disk alarm), until the deadline. Nothing was sent."""


class MessageTooLarge(TransportError):
    """The message is over the size cap. Nothing was sent."""


class TooManyPending(TransportError):
    """This client waits for as many calls as it may (``max_pending``). Nothing was sent, and nothing waits."""


class ClientClosed(TransportError):
    """The client was closed, or belongs to the process that forked this one."""


class CallTimeout(TransportError, TimeoutError):
    """No answer by the deadline. ``may_have_run`` is true when the request had left."""

    may_have_run = True


class ConnectionLost(TransportError, ConnectionError):
    """The connection ended before the answer came. The client reconnects by itself."""

    may_have_run = True


class MalformedReply(TransportError):
    """An answer came that is no JSON-RPC 2.0 response to the request."""

    may_have_run = True
