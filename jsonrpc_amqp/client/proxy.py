"""Methods as attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..jsonrpc.params import Params


class Proxy:
    """
    The name of a method, which each attribute extends; calling it calls the method.

    Args:
        call: Calls a method.
        name: The method's; empty for the proxy that the others come from.
        service: Shown by ``repr``; None where a call names it.
    """

    def __init__(self, call: Callable[[str, Params], Any], name: str, service: str | None = None) -> None:
        self.__call = call
        self.__name = name
        self.__service = service

    def __repr__(self) -> str:
        name = f" {self.__name!r}" if self.__name else ""
        service = f" of service {self.__service!r}" if self.__service else ""
        return f"<Proxy{name}{service}>"

    def __getattr__(self, part: str) -> Proxy:
        # Python's own protocols look such names up. A remote method of such a name is called by ``call``.
        if part.startswith("__"):
            raise AttributeError(part)
        return Proxy(self.__call, f"{self.__name}.{part}" if self.__name else part, self.__service)

    # Positional-only: a method may have a parameter named "self".
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if args and kwargs:
            raise TypeError("JSON-RPC takes parameters by position or by name, not both")
        if not self.__name:
            raise TypeError("a proxy is called by a method's name: client.proxy.time.now()")
        return self.__call(self.__name, list(args) if args else kwargs or None)
