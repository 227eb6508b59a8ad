"""
The servers of the mixed check: ``serve tests.abuse.mixed_served:guarded`` and ``:plain``.

The first has all checks of docs/security.md; the second has a dialect, with which no sender can be verified.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
from collections import Counter
from typing import Any

from jsonrpc_amqp import Server

from .served import methods

GUARDED, PLAIN = "guarded", "plain"
SERVER, NEIGHBOUR = "srv", "neighbour"
_CONTAINERS = (dict, set, list)


def tables() -> dict[str, int]:
    """Return how many entries the largest container of each kind has: attributes of our objects, caches, and all."""
    largest: Counter[str] = Counter()
    objects = gc.get_objects()
    for each in objects:
        kind = type(each)
        if isinstance(each, functools._lru_cache_wrapper):
            _note(largest, f"cache of {each.__wrapped__.__qualname__}", each.cache_info().currsize)
        elif str(kind.__module__).startswith("jsonrpc_amqp"):  # of a ctypes structure it is no text
            for name, value in _attributes(each):
                if isinstance(value, _CONTAINERS) or type(value).__name__ == "deque":
                    _note(largest, f"{kind.__name__}.{name}", len(value))
    return dict(largest)


def kept() -> dict[str, int]:
    """Return what is in use: how many blocks of memory Python has, and bytes that the C library has given out."""
    gc.collect()
    return {"blocks": sys.getallocatedblocks(), "used": _mallinfo().uordblks}


class _MallInfo(ctypes.Structure):
    # mallinfo2(3), glibc 2.33 and later.
    _fields_ = (("before", ctypes.c_size_t * 7), ("uordblks", ctypes.c_size_t), ("behind", ctypes.c_size_t * 2))


def _mallinfo() -> Any:
    function = ctypes.CDLL(None).mallinfo2
    function.restype = _MallInfo
    return function()


def trim() -> None:
    """Have the C library return what it can to the system, as what is left then is in use, or between what is."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _note(largest: Counter[str], name: str, size: int) -> None:
    largest[name] = max(largest[name], size)


def _attributes(owner: object) -> list[tuple[str, Any]]:
    found = dict(getattr(owner, "__dict__", {}))
    for each in type(owner).__mro__:
        slots = each.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(owner, name):
                found[name] = getattr(owner, name)
    return list(found.items())


_methods = {**methods, "tables": tables, "kept": kept, "trim": trim}
_url = os.environ.get("AMQP_URL", "amqp://")
guarded = Server(
    _url,
    GUARDED,
    methods=_methods,
    verify_user=True,
    authorize={**dict.fromkeys(("tables", "kept", "trim", "visit"), NEIGHBOUR), "*": "*"},
    dead_letters=True,
)
plain = Server(_url, PLAIN, methods=_methods, dialect="recipe2011", recipe_method="echo", dead_letters=True)
