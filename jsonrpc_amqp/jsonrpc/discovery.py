"""The method ``rpc.discover`` (pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .service_info import Info

DISCOVER = "rpc.discover"

_Functions = dict[str, Callable[..., Any]]


class Discovery:
    """
    Describes the methods of a dispatcher: ``discovery()``.

    The document is made when it is first asked for, and again once there are other methods. Any number of threads may
    ask.

    Args:
        info: What the service says of itself.
        functions: Returns the functions of the methods that can be called, by name.
    """

    def __init__(self, info: Info, functions: Callable[[], _Functions]) -> None:
        self._info = info
        self._functions = functions
        self._made: tuple[_Functions, dict[str, Any]] | None = None

    def __call__(self) -> dict[str, Any]:
        """Describe this service, as a document of OpenRPC."""
        functions = self._functions()
        made = self._made
        if made is None or not _are_same(made[0], functions):
            from .openrpc import document  # not before: most servers are never asked

            self._made = made = (functions, document(self._info, functions.items()))
        return made[1]


def _are_same(before: _Functions, now: _Functions) -> bool:
    """Whether names and functions are the same; functions are objects of the user's, which may be equal to anything."""
    return before.keys() == now.keys() and all(before[name] is function for name, function in now.items())
