"""The last step of a dispatch: responses to a reply that JSON can express and the size cap allows (pure)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import INTERNAL_ERROR, EncodeError
from .error_objects import Response, error_response
from .text import dumps

logger = logging.getLogger("jsonrpc_amqp.dispatch")

# Reserved for each batch member whose response is still to be written, so that a large result costs only itself.
_ERROR_SIZE = 256


class ReplyWriter:
    """
    Writes the replies of one dispatcher.

    Args:
        max_size: The largest reply, in bytes.
        max_depth: Most arrays and objects inside one another.
        expose_errors: Say in ``data`` why a response cannot be written.
    """

    def __init__(self, *, max_size: int, max_depth: int, expose_errors: bool) -> None:
        self._max_size = max_size
        self._max_depth = max_depth
        self._expose_errors = expose_errors

    def write(self, method: str | None, response: Response) -> tuple[bytes, int]:
        """
        Write the reply to a single request.

        Args:
            method: Named in logs; None if the request was invalid.
            response: Its response.

        Returns:
            At most ``max_size`` bytes, and the number of error objects in them.
        """
        return self._fit(*self._write(method, response, self._max_size, self._max_depth))

    def write_batch(
        self, methods: Sequence[str | None], responses: Iterable[Response | None]
    ) -> tuple[bytes | None, int]:
        """
        Write the reply to a batch.

        Args:
            methods: Of each member; see ``write``.
            responses: The response to each member, None for notifications; may be lazy.

        Returns:
            See ``write``; None instead of the bytes if there is no response at all.
        """
        texts: list[bytes] = []
        failures = 0
        room, remaining = self._max_size - len("[]"), len(methods)
        for method, response in zip(methods, responses, strict=True):
            remaining -= 1
            if response is None:
                continue
            text, failed = self._write(method, response, room - remaining * _ERROR_SIZE, self._max_depth - 1)
            room -= len(text) + len(",")
            texts.append(text)
            failures += failed
        return self._fit(b"[%b]" % b",".join(texts), failures) if texts else (None, 0)

    def _write(self, method: str | None, response: Response, room: int, max_depth: int) -> tuple[bytes, int]:
        """Return the text of a response, or of the error that takes its place, and 1 if it is an error."""
        response, text = self._encode(method, response, max_depth)
        if len(text) > room:
            logger.error("the reply of %r is over the size cap: %d bytes", method, len(text))
            response = self._too_large(response["id"])
            text = dumps(response)
        return text, "error" in response

    def _encode(self, method: str | None, response: Response, max_depth: int) -> tuple[Response, bytes]:
        """Return a response, reduced to what JSON can express, and its text."""
        try:
            return response, dumps(response, max_depth=max_depth)
        except EncodeError as exc:
            logger.exception("the reply of %r cannot be written as JSON", method)
            detail = (str(exc),) if self._expose_errors else ()
        error = response.get("error", {})
        if "data" in error:
            bare = {"jsonrpc": "2.0", "error": {**error}, "id": response["id"]}
            del bare["error"]["data"]
            return self._encode(method, bare, max_depth)
        return self._encode(method, error_response(response["id"], INTERNAL_ERROR, *detail), max_depth)

    def _fit(self, text: bytes, failures: int) -> tuple[bytes, int]:
        # Only ids that are huge themselves make a reply that is still over the cap.
        if len(text) > self._max_size:
            return dumps(self._too_large(None)), 1
        return text, failures

    def _too_large(self, id: Any) -> Response:
        return error_response(id, INTERNAL_ERROR, f"the reply is over the size cap of {self._max_size} bytes")
