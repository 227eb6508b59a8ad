"""The registry of a dispatcher: names, functions, and what a redelivery or a crash means to each method (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Signature
from threading import Lock
from typing import Any, Literal, NamedTuple, TypedDict, cast, get_args

from .error_handlers import ErrorHandlers
from .error_objects import Response
from .invocation import PreparedMethod
from .middleware import Middleware, WrappedMethod, checked_middleware, is_async_for_all
from .rejection import Rejection, is_refused

Redelivery = Literal["run", "refuse"]
Ack = Literal["late", "early"]

_RESERVED_PREFIX = "rpc."


class PolicyOptions(TypedDict, total=False):
    """What is said for one method; what is left out, or None, is the dispatcher's; see ``Dispatcher``."""

    redelivery: Redelivery | None
    ack: Ack | None
    cancel_on_deadline: bool | None
    validate: bool | None
    middleware: Sequence[Middleware] | None
    bypass_middleware: bool | None


class Policy(NamedTuple):
    """What a redelivery, and a crash of the process, means to a method; see ``Dispatcher``."""

    redelivery: Redelivery
    ack: Ack
    cancel_on_deadline: bool = False
    validate: bool = True
    middleware: tuple[Middleware, ...] = ()
    bypass_middleware: bool = False

    def changed(self, options: PolicyOptions) -> Policy:
        """
        Return the policy with some options.

        Raises:
            TypeError: There is no such option, or a middleware cannot be called.
            ValueError: An option has none of its possible values.
        """
        if unknown := options.keys() - set(self._fields):
            raise TypeError(f"a method has no option {', '.join(sorted(unknown))}; it has {', '.join(self._fields)}")
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if "middleware" in given:
            given["middleware"] = checked_middleware(given["middleware"])
        return self._replace(**given).checked()

    def checked(self) -> Policy:
        """
        Return the policy itself.

        Raises:
            ValueError: A field has none of its possible values.
        """
        for field, choices in (("redelivery", Redelivery), ("ack", Ack)):
            if getattr(self, field) not in get_args(choices):
                raise ValueError(f"{field} is one of {get_args(choices)}, not {getattr(self, field)!r}")
        return self


class Methods:
    """
    Methods by name: those that were registered, those of a mapping, and the library's own extensions.

    Any number of threads may use it.

    Args:
        given: Further functions by name. The mapping is never written to, and entries added to it later count.
        extensions: Functions by names that JSON-RPC reserves (``rpc.*``).
        policy: The policy of methods that were registered without one.
        max_name: Most bytes of a name.
        expose_errors, check_results: See ``PreparedMethod``.
        middleware: Runs around all methods; the first is the outermost.

    Attributes:
        has_early: Whether any method may be acknowledged before it runs.
        has_async: Whether any method is ``async def``, or the middleware around requests that are not run.
        error_handlers: Say what is answered for exceptions of all methods.

    Raises:
        TypeError: A function of ``given`` cannot be called, or has a hint that nothing converts to; or no method can
            have all of the middleware around it.
        ValueError: A name in ``given`` is empty, reserved or too long, or there is no such policy.
    """

    def __init__(
        self,
        given: Mapping[str, Callable[..., Any]],
        *,
        extensions: Mapping[str, Callable[..., Any]],
        policy: Policy,
        max_name: int,
        expose_errors: bool,
        check_results: bool,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self._middleware: tuple[Middleware, ...] = ()
        self.has_async = False
        self._wrap(checked_middleware(middleware))
        self._policy = policy.checked()
        self.has_early = policy.ack == "early"
        self._given = given
        self._max_name = max_name
        self._extensions = extensions
        self._check_results = check_results
        self.error_handlers = ErrorHandlers()
        self._options: dict[str, Any] = {"expose_errors": expose_errors, "error_handlers": self.error_handlers}
        self._registered: dict[str, Callable[..., Any]] = {}
        self._policies: dict[str, Policy] = {}
        self._prepared: dict[str, PreparedMethod] = {}
        self._lock = Lock()
        for name, function in given.items():
            self._check_name(name)
            self._prepare(name, function, policy)

    @property
    def names(self) -> list[str]:
        """The names of all methods, sorted, without extensions."""
        return sorted({*self._registered, *self._given})

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions of all methods that can be called, by name, sorted, without extensions."""
        return {name: method.function for name in self.names if (method := self._find_or_none(name)) is not None}

    def add(self, function: Callable[..., Any], name: str | None, options: PolicyOptions) -> None:
        """Register a function; see ``Dispatcher.register``."""
        self.add_all([(function, _own_name(function) if name is None else name, options)])

    def add_all(self, added: Sequence[tuple[Callable[..., Any], str, PolicyOptions]]) -> None:
        """Register functions by names with options, all or, if one is refused, none."""
        with self._lock:
            made: list[tuple[str, Policy, PreparedMethod]] = []
            for function, name, options in added:
                self._check_name(name)
                policy = self._policy.changed(options)
                if self._function(name) not in (None, function) or any(name == other for other, *_rest in made):
                    raise ValueError(f"method {name!r} is registered already")
                made.append((name, policy, self._make(name, function, policy)))
            for name, policy, method in made:
                self._registered[name] = method.function
                self._policies[name] = policy
                self._keep(name, method)
                self.has_early = self.has_early or policy.ack == "early"

    def wrap(self, middleware: Middleware) -> None:
        """
        Have a middleware run around all methods, inside those that do so already.

        Raises:
            TypeError: It cannot be called, or not around a method that is registered: see ``WrappedMethod``.
        """
        with self._lock:
            before = self._middleware
            self._wrap((*before, *checked_middleware([middleware])))
            try:
                for name in self.names:
                    self._prepare(name, cast("Callable[..., Any]", self._function(name)), self.policy_of(name))
            except BaseException:
                self._wrap(before)
                self._prepared.clear()
                raise

    def find(self, name: str) -> PreparedMethod | None:
        """
        Return the method of a name, or None if there is none.

        Raises:
            TypeError: The given mapping has an entry of this name that cannot be called, or with an unsupported hint.
            Exception: The given mapping raised.
        """
        function = self._function(name)
        if function is None:
            return None
        method = self._prepared.get(name)
        if method is None or method.function is not function:
            with self._lock:  # with all middleware that there is
                method = self._prepare(name, function, self.policy_of(name))
        return method

    def rejection(self, name: str, response: Response) -> Rejection | Response:
        """
        Return what responds to a request that is not run: middleware around the error response, or that alone.

        That of one method does not run: whether there is such a method is not told to those who may not call it, and
        nor is whether it does without.
        """
        is_bare = (
            name.startswith(_RESERVED_PREFIX) if is_refused(response) else self._is_bare(name, self.policy_of(name))
        )
        if not self._middleware or is_bare:
            return response
        return Rejection(name, response, self._middleware, is_async=self._is_async_for_all, **self._options)

    def is_async(self, name: str) -> bool:
        """Whether a method is ``async def``; where there is none, whether the middleware around the error is."""
        method = self._find_or_none(name)
        return self._is_async_for_all if method is None else method.is_async

    def _find_or_none(self, name: str) -> PreparedMethod | None:
        try:
            return self.find(name)
        except Exception:  # it is raised again, and logged, when the method is looked up to run
            return None

    def policy_of(self, name: str) -> Policy:
        """Return the policy of a method, whether there is such a method or not."""
        return self._policies.get(name, self._policy)

    def is_early(self, name: str, *, redelivered: bool) -> bool:
        """Whether a request for a method is to be acknowledged before it runs."""
        policy = self.policy_of(name)
        # A request that will be rejected may have to become a dead letter, so it must not be acknowledged yet.
        return policy.ack == "early" and not (redelivered and policy.redelivery == "refuse")

    def signature_of(self, name: str) -> Signature | None:
        """Return a method's signature, as far as it can be read, or None if there is no such method."""
        try:
            method = self.find(name)
        except TypeError:
            return None
        return None if method is None else method.signature

    def _function(self, name: str) -> Callable[..., Any] | None:
        # With ``get``, so that a given defaultdict does not create methods for names from the wire.
        if name.startswith(_RESERVED_PREFIX):
            return self._extensions.get(name)
        function = self._registered.get(name)
        return self._given.get(name) if function is None else function

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a method must be a string, not {name!r}")
        if not name:
            raise ValueError("the name of a method must not be empty")
        if name.startswith(_RESERVED_PREFIX):
            raise ValueError(f"method name {name!r}: JSON-RPC reserves the names that begin with {_RESERVED_PREFIX!r}")
        if is_longer(name, self._max_name):
            raise ValueError(f"method name {name[:40]!r}...: it has more than {self._max_name} bytes, see max_method")

    def _prepare(self, name: str, function: Callable[..., Any], policy: Policy) -> PreparedMethod:
        return self._keep(name, self._make(name, function, policy))

    def _keep(self, name: str, method: PreparedMethod) -> PreparedMethod:
        self._prepared[name] = method
        self.has_async = self.has_async or method.is_async
        return method

    def _make(self, name: str, function: Callable[..., Any], policy: Policy) -> PreparedMethod:
        around = () if self._is_bare(name, policy) else (*self._middleware, *policy.middleware)
        make = partial(WrappedMethod, around=around) if around else PreparedMethod
        options = {"validate": policy.validate, "check_results": self._check_results, **self._options}
        method: PreparedMethod = make(name, function, **options)
        return method

    @staticmethod
    def _is_bare(name: str, policy: Policy) -> bool:
        """Whether no middleware runs around a method."""
        return policy.bypass_middleware or name.startswith(_RESERVED_PREFIX)

    def _wrap(self, middleware: tuple[Middleware, ...]) -> None:
        self._is_async_for_all = is_async_for_all(middleware)
        self.has_async = self.has_async or self._is_async_for_all
        self._middleware = middleware


def is_longer(name: str, most: int) -> bool:
    """Whether a name has more bytes in UTF-8."""
    # No character takes more than four bytes, so most names need no encoding, and one that is far too long gets none.
    return 4 * len(name) > most and (len(name) > most or len(name.encode("utf-8", "surrogatepass")) > most)


def _own_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "<none>")
    if name.startswith("<"):
        raise ValueError(f"{function!r} has no name of its own: say under which name to register it")
    return cast(str, name)
