"""
The exceptions of this library, as one tree.

    JsonRpcAmqpError
    ├── RemoteError             the reply is a JSON-RPC error object
    │   ├── ParseError          -32700
    │   ├── InvalidRequest      -32600
    │   ├── MethodNotFound      -32601
    │   ├── InvalidParams       -32602
    │   ├── InternalError       -32603
    │   ├── ServerError         -32000 to -32099
    │   └── ApplicationError    base of a program's own errors, see ``application_errors``
    ├── TransportError          no reply; ``may_have_run`` says whether the method may have run
    │   ├── NotConnected        never sent: no connection by the deadline
    │   ├── AccessRefused       never sent: the broker refused the user, or the operation to that user
    │   ├── TopologyMismatch    never sent: an exchange or queue exists with other properties, or is missing
    │   ├── Unroutable          returned: no queue is bound for the service
    │   ├── NoConsumers         never sent: no server consumes from the queue (with ``no_consumers="fail"``)
    │   ├── Overloaded          rejected: the queue did not take the message (nack)
    │   ├── Blocked             never sent: the broker blocks publishers (memory or disk alarm)
    │   ├── MessageTooLarge     never sent: over the size cap
    │   ├── MessageRejected     rejected: the broker takes no such message, because of a header say
    │   ├── TooManyPending      never sent: this client has its maximum of pending calls
    │   ├── ClientClosed        the client was closed, or belongs to another process
    │   ├── CallTimeout         no reply by the deadline
    │   ├── ConnectionLost      the connection ended before the reply
    │   │   └── MaybeRejected   the broker ended it because of a message, and this may be the one
    │   └── MalformedReply      the reply is not a JSON-RPC 2.0 response to the request
    ├── WouldDeadlock           a callback, a log handler or a signal handler would wait for its own thread
    ├── WrongEventLoop          an asynchronous client or server is used outside the event loop that it belongs to
    ├── NoDeadLetter            no dead letter matches this key, or the prefix is ambiguous
    ├── NotRequeued             a dead letter that is not sent again, for example a call, whose caller is gone
    ├── InvalidName             a service or user name that cannot be part of a routing key
    ├── MissingExtra            an optional part needs a library that is not installed
    └── EncodeError             params or a result that JSON cannot express, or headers that AMQP cannot
"""

from __future__ import annotations

import copy
from typing import Any

# https://www.jsonrpc.org/specification#error_object
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR_MIN, SERVER_ERROR_MAX = -32099, -32000
# This library's own, from that range.
REDELIVERY_REFUSED = -32001
DELIVERY_LIMIT_REACHED = -32002
NOT_AUTHORISED = -32003
NOT_DELIVERED = -32004
"""A bridge, a gateway or an adapter could not hand the request on: the method did not run."""
NO_ANSWER = -32005
"""A bridge, a gateway or an adapter handed the request on, and got no reply: the method may have run."""


class JsonRpcAmqpError(Exception):
    """
    Base of all exceptions of this library.

    Copies and pickles of them have their attributes and notes; not their cause and traceback, which Python leaves out
    as well.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is there, but that the class is not called with ``args``: subclasses take other arguments.
        reduced = super().__reduce__()
        assert isinstance(reduced, tuple)
        _kind, args, *state = reduced
        return (_restore, (type(self), args), *state)


def _restore(kind: type[JsonRpcAmqpError], args: tuple[Any, ...]) -> JsonRpcAmqpError:
    """Return an exception as ``copy`` and ``pickle`` have it before they set its attributes."""
    error = kind.__new__(kind, *args)
    builtin = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    builtin.__init__(error, *args)  # type: ignore[misc]  # of this base, whose arguments they are
    return error


class InvalidName(JsonRpcAmqpError, ValueError):
    """A service or user name breaks a rule of the wire contract; the message names the rule."""


class EncodeError(JsonRpcAmqpError, ValueError):
    """
    JSON cannot express a value, AMQP cannot express a header, or it is nested too deep. Nothing was sent.

    Of a value, the message begins with the path to the part that cannot be expressed, if it was found.
    """


class WouldDeadlock(JsonRpcAmqpError, RuntimeError):
    """
    A thread would wait for what only itself can bring about: in a callback, a log handler or a signal handler.

    Nothing was sent. Use ``submit`` there, or hand the work to another thread.
    """


class WrongEventLoop(JsonRpcAmqpError, RuntimeError):
    """
    An asynchronous client or server is used outside the event loop that it belongs to, or after that was closed.

    Nothing was sent. Make one in each event loop.
    """


class NoDeadLetter(JsonRpcAmqpError, LookupError):
    """No dead letter matches this key, or the prefix is ambiguous. Nothing was done."""


class NotRequeued(JsonRpcAmqpError):
    """A named dead letter is a call, is unchecked, or cannot be read, so it is not sent again. Nothing was done."""


class MissingExtra(JsonRpcAmqpError, ImportError):
    """A part of this package needs a library that is not installed; the message names the extra that installs it."""

    def __init__(self, part: str, library: str, extra: str) -> None:
        super().__init__(f"{part} needs {library}: pip install 'jsonrpc-amqp[{extra}]'", name=library)


class RemoteError(JsonRpcAmqpError):
    """
    The reply is a JSON-RPC error object. Or a method raises it, to have its caller get that one.

    Attributes:
        code: The error's number; the specification reserves -32768 to -32000.
        message: One sentence from the server.
        data: Further information from the server, of any JSON type, or None.
        is_reply: A client made it from a reply. A method that lets it through gets its caller an "Internal error": what
            another service says of another call is not true of this one.
    """

    code: int
    message: str
    is_reply: bool = False

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" + ("" if self.data is None else f": {self.data!r}")


class _StandardError(RemoteError):
    """An error whose class says its code, so that it is made of a message alone, and of ``data``."""

    def __init__(self, message: str, data: Any = None) -> None:
        # It may be the code, which all of them once took first.
        if not isinstance(message, str):
            raise TypeError(f"{type(self).__name__} takes a message, and data; not {message!r}: it has its own code")
        super().__init__(self.code, message, data)


class ParseError(_StandardError):
    """-32700: the server could not read the request as JSON."""

    code = PARSE_ERROR


class InvalidRequest(_StandardError):
    """-32600: the JSON sent is not a JSON-RPC 2.0 request."""

    code = INVALID_REQUEST


class MethodNotFound(_StandardError):
    """-32601: the service has no such method, which ``data`` names. It did not run."""

    code = METHOD_NOT_FOUND


class InvalidParams(_StandardError):
    """-32602: the parameters do not fit the method, which did not run, or which raised this because of them."""

    code = INVALID_PARAMS


class InternalError(_StandardError):
    """-32603: the method raised an exception, or its result could not be sent."""

    code = INTERNAL_ERROR


class ServerError(RemoteError):
    """-32000 to -32099: an error that the server implementation defines."""


_BY_CODE: dict[int, type[_StandardError]] = {
    kind.code: kind for kind in (ParseError, InvalidRequest, MethodNotFound, InvalidParams, InternalError)
}


def remote_error(code: int, message: str, data: Any = None) -> RemoteError:
    """Return the exception for a JSON-RPC error object."""
    if SERVER_ERROR_MIN <= code <= SERVER_ERROR_MAX:
        return ServerError(code, message, data)
    standard = _BY_CODE.get(code)
    return RemoteError(code, message, data) if standard is None else standard(message, data)


class TransportError(JsonRpcAmqpError):
    """
    There is no reply.

    Attributes:
        may_have_run: False only if it is certain that this attempt did not run the method, so that a retry cannot run
            it twice.
    """

    may_have_run = False

    def __init__(self, message: str, *, may_have_run: bool | None = None) -> None:
        super().__init__(message)
        if may_have_run is not None:
            self.may_have_run = may_have_run

    def again(self) -> TransportError:
        """Return a copy, for another caller to raise: each raise needs a traceback of its own."""
        error = copy.copy(self)
        error.__cause__ = self.__cause__
        return error

    def reworded(self, message: str, *, may_have_run: bool) -> TransportError:
        """Return a copy that says something else, or more."""
        error = self.again()
        error.args, error.may_have_run = (message,), may_have_run
        return error


class NotConnected(TransportError, ConnectionError):
    """There was no connection to the broker by the deadline. Nothing was sent."""


class AccessRefused(TransportError, PermissionError):
    """The broker refused the user, or an operation to that user. The client does not retry by itself."""


class TopologyMismatch(TransportError):
    """An exchange or queue exists with other properties than requested, or is missing with ``declare=False``."""


class Unroutable(TransportError):
    """The broker returned the request: no server of this service was ever set up here. It did not run."""


class NoConsumers(TransportError):
    """The queue of the service has no consumers, and ``no_consumers="fail"`` was given. Nothing was sent."""


class Overloaded(TransportError):
    """
    The broker rejected the message (``basic.nack``), for example because the queue is full. It did not run.

    There is one exception, which the protocol cannot distinguish: in a cluster, if the node of a *classic* queue fails,
    RabbitMQ rejects the messages that it had not confirmed, and some may be in the queue when the node is back.
    """


class Blocked(TransportError):
    """The broker blocked publishers (a memory or disk alarm) until the deadline. Nothing was sent."""


class MessageTooLarge(TransportError):
    """The message is over the size cap. Nothing was sent."""


class MessageRejected(TransportError):
    """The broker takes no message like this one, and would reject it each time. It did not run."""


class TooManyPending(TransportError):
    """This client has its maximum of pending calls (``max_pending``). Nothing was sent."""


class ClientClosed(TransportError):
    """The client was closed, or belongs to the process that forked this one."""


class CallTimeout(TransportError, TimeoutError):
    """No reply by the deadline. ``may_have_run`` is true if the request was sent."""

    may_have_run = True


class ConnectionLost(TransportError, ConnectionError):
    """The connection ended before the reply. The client reconnects by itself."""

    may_have_run = True


class MaybeRejected(ConnectionLost):
    """
    The broker ended the connection because of a message, did not say which, and this may be the one.

    It is not sent again by ``retry=``: it might end the next connection, too, with all other calls on it.
    """


class MalformedReply(TransportError):
    """The reply is not a JSON-RPC 2.0 response to the request."""

    may_have_run = True
