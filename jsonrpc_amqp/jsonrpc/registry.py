"""How methods are registered with a dispatcher: functions one by one, and the methods of an object (pure)."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Signature
from typing import Any, TypeVar, Unpack, get_origin, overload

from .error_handlers import E
from .marks import described_methods, marked_methods, name_of, options_of
from .methods import Methods, PolicyOptions
from .middleware import Middleware

_Function = TypeVar("_Function", bound=Callable[..., Any])
M = TypeVar("M", bound=Middleware)


class Registry:
    """What registers methods; ``Dispatcher`` is one."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    def register(
        self,
        target: Any,
        name: str | None = None,
        *,
        prefix: str | None = None,
        description: type | None = None,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        """
        Let callers call a function, or methods of an object: ``register(Inventory(db), prefix="inventory.")``.

        Args:
            target: A function; or, with a ``prefix`` or a ``description``, or if it cannot be called, an object.
            name: The function's name as a method; its own where it is None.
            prefix: What the names of the object's methods begin with, such as ``"inventory."``.
            description: A class, such as a Protocol, whose public methods name those of the object that callers may
                call; None: those that are marked with ``@method``. All of them are registered, or none.
            policy: ``redelivery``, ``ack``, ``cancel_on_deadline`` and ``validate`` for these methods, where a mark
                does not say; else those of the dispatcher.

        Raises:
            TypeError: It cannot be called, has a hint that nothing converts to, or no methods that are marked or
                described; or a name is no string.
            ValueError: A name is empty, reserved, too long, or taken by another function; or there is no such policy.
        """
        is_function = callable(target) and not (isinstance(target, type) and any(marked_methods(target)))
        if prefix is None and description is None and (is_function or name is not None):
            self._methods.add(target, name, policy)
            return
        if name is not None:
            raise TypeError("the methods of an object have names of their own: give a prefix, and no name")
        self._methods.add_all(
            [
                (getattr(target, attribute), (prefix or "") + name, {**policy, **options_of(type(target), attribute)})
                for attribute, name in _methods_of(target, get_origin(description) or description).items()
            ]
        )

    @overload
    def method(self, function: _Function, /) -> _Function: ...
    @overload
    def method(self, name: str | None = None, **policy: Unpack[PolicyOptions]) -> Callable[[_Function], _Function]: ...
    def method(self, name: Any = None, **policy: Unpack[PolicyOptions]) -> Any:
        """
        Register the decorated function: ``@method``, ``@method("time.now")`` or ``@method(name="time.now")``.

        Returns the function unchanged. The other arguments are those of ``register``.

        Raises:
            TypeError: As ``register``.
            ValueError: As ``register``.
        """
        if callable(name):
            return self.method()(name)

        def decorate(function: _Function) -> _Function:
            self.register(function, name, **policy)
            return function

        return decorate

    def error_handler(self, kind: type[E]) -> Callable[[Callable[[E], Exception]], Callable[[E], Exception]]:
        """
        Have the decorated function say what is answered for exceptions of a class, and of its subclasses.

        It is given the exception, and returns or raises a ``RemoteError``, or jsonrpcserver's ``JsonRpcError``. Any
        other exception is logged, and the caller gets "Internal error". Of several functions that for the nearest base
        is called. None is called for what a method raises to respond with that error.

        Raises:
            TypeError: It is no class of exceptions. The decorator: the function cannot be called, or is ``async def``.
            ValueError: The decorator: there is another function for this class.
        """
        return self._methods.error_handlers.decorator(kind)

    def middleware(self, function: M) -> M:
        """
        Have the decorated function run around each request: ``function(request, call_next)``.

        It is inside those that were given before. See ``docs/middleware.md``.

        Returns the function unchanged.

        Raises:
            TypeError: It cannot be called; or it is ``def`` and a method ``async def``, or the other way round.
        """
        self._methods.wrap(function)
        return function

    def signature_of(self, name: str) -> Signature | None:
        """Return a method's signature, as far as it can be read, or None if there is no such method."""
        return self._methods.signature_of(name)

    @property
    def names(self) -> list[str]:
        """The names of all methods that can be called."""
        return self._methods.names


def _methods_of(target: object, description: type | None) -> dict[str, str]:
    """Return the names of the methods of an object that callers may call, by attribute."""
    if description is not None:
        found = {attribute: name_of(description, attribute) for attribute in described_methods(description)}
        if missing := [attribute for attribute in found if not callable(getattr(target, attribute, None))]:
            raise TypeError(f"{target!r} has no method {missing[0]!r}, which {description.__qualname__} describes")
        return found
    if isinstance(target, type):
        raise TypeError(f"{target!r} is a class: register an object of it")
    found = dict(marked_methods(type(target)))
    if not found:
        raise TypeError(
            f"{target!r} cannot be called, and has no methods that are marked with @method from jsonrpc_amqp"
        )
    return found
