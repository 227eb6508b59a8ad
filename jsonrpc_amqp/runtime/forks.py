"""
What a forked process does with the descriptors that it inherits: it closes them. And what no other process can have.

It has no thread that uses them, and an open copy keeps the broker from noticing that the parent has ended. Closing a
copy leaves the original as it is; so nothing may be sent, and no socket be shut down, which the parent would notice.
"""

from __future__ import annotations

import os
import weakref
from typing import NoReturn, Protocol


class Inherited(Protocol):
    """What has descriptors."""

    def close_in_child(self) -> None:
        """Close them; called in the forked process, whose only thread is the calling one. Take no lock."""
        ...


_owners: weakref.WeakSet[Inherited] = weakref.WeakSet()


def close_when_forked(owner: Inherited) -> None:
    """Have the descriptors of ``owner`` closed in each process that is forked while it exists."""
    _owners.add(owner)


def _close_all() -> None:
    for owner in list(_owners):
        owner.close_in_child()
    _owners.clear()


os.register_at_fork(after_in_child=_close_all)


class OfOneProcess:
    """Cannot be pickled, as what is passed to a pool of processes would be; nor copied."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "clients and servers cannot be pickled, since their connections belong to this process: make one in each "
            "process"
        )
