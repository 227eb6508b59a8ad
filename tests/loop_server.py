"""
``AsyncServer`` with the surface of ``Server``, so that the tests of the one are run on the other.

``pytest --server=asyncio`` (or ``uvloop``) puts it in the place of ``Server`` in the modules of the tests.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from jsonrpc_amqp import AsyncServer

from .loop_client import Loop


class LoopServer:
    """``AsyncServer`` on the event loop of the tests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.server = AsyncServer(*args, **options)
        self.loop = Loop.shared()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def start(self, *args: Any, **options: Any) -> LoopServer:
        self.loop.run(self.server.start(*args, **options))
        return self

    def serve_forever(self, **options: Any) -> bool:
        return self.loop.run(self.server.serve_forever(**options))

    def stop(self, *args: Any, **options: Any) -> bool:
        return self.loop.run(self.server.stop(*args, **options))

    def __repr__(self) -> str:
        return repr(self.server)

    def __enter__(self) -> LoopServer:
        self.loop.run(self.server.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.run(self.server.__aexit__(kind, exc, trace))
