"""All exceptions of the package, found by looking into each module, and an example of each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import jsonrpc_amqp
from jsonrpc_amqp.application_errors import ApplicationError
from jsonrpc_amqp.errors import InvalidParams, MissingExtra, RemoteError, TransportError, _StandardError
from jsonrpc_amqp.jsonrpc import inspection
from jsonrpc_amqp.jsonrpc.conversion import DoesNotFit, Misfit


class OutOfStock(ApplicationError, code=1001):
    """As users define them."""

    sku: str
    left: int = 0


def _exceptions() -> list[type[BaseException]]:
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(jsonrpc_amqp.__path__, "jsonrpc_amqp."):
        if module.name.endswith("__main__"):
            continue
        try:
            members = vars(importlib.import_module(module.name)).values()
        except MissingExtra:
            continue  # of an adapter, whose library is not installed
        found.update(each for each in members if inspect.isclass(each) and issubclass(each, BaseException))
    ours = (each for each in found if each.__module__.startswith("jsonrpc_amqp."))
    return sorted(ours, key=lambda each: (each.__module__, each.__name__))


EXCEPTIONS = _exceptions()


def example(kind: type[BaseException]) -> BaseException:
    """Return an exception of a class, with all attributes set to what they are not by default."""
    make: Any = kind
    if issubclass(kind, MissingExtra):
        return kind("the gateway", "starlette", "http")
    if issubclass(kind, ApplicationError):
        return OutOfStock("a7", left=3)
    if issubclass(kind, _StandardError):
        return (InvalidParams if kind is _StandardError else kind)("why", {"a": [1]})
    if issubclass(kind, RemoteError):
        return kind(-32042, "why", {"a": [1]})
    if issubclass(kind, TransportError):
        return kind("why", may_have_run=not kind.may_have_run)
    if issubclass(kind, DoesNotFit):
        return kind([Misfit("a[0]", "why")])
    if kind.__name__ == "_HttpError":
        error = RemoteError(-32600, "why")
        made: BaseException = make(413, error, inspection.UNREADABLE)
        return made
    plain: BaseException = make("why", 7) if kind.__name__ == "_Skip" else make("why")
    return plain


def state_of(error: BaseException) -> dict[str, Any]:
    """Return all that an exception says, in a form that can be compared."""
    names = ("may_have_run", "code", "message", "data", "name", "msg", "errno", "strerror", "exit_code")
    state = {name: getattr(error, name) for name in names if hasattr(error, name)}
    attributes = {name: repr(value) for name, value in vars(error).items()}
    return {
        "type": type(error),
        "text": str(error),
        "repr": repr(error),
        "args": repr(error.args),
        **state,
        **attributes,
    }


def raise_example(kind: type[BaseException]) -> None:
    """Raise an exception of a class; for another process, which finds this by its name."""
    raise example(kind)
