"""The last step of a dispatch: responses to a reply that JSON can express and the size cap allows (pure)."""

from __future__ import annotations

import logging
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
        return self.fit(*self.write_within(method, response, self._max_size, self._max_depth))

    def batch(self, members: int) -> BatchWriter:
        """Return what writes the reply to a batch with so many members."""
        return BatchWriter(self, self._max_size - len("[]"), self._max_depth - 1, members)

    def write_within(self, method: str | None, response: Response, room: int, max_depth: int) -> tuple[bytes, int]:
        """Return the text of a response, or of the error that takes its place, and 1 if it is an error."""
        response, text = self._encode(method, response, max_depth)
        if len(text) > room and "data" in response.get("error", ()):
            logger.error(
                "the reply of %r, an error, is over the size cap: %d bytes; sent without data", method, len(text)
            )
            response, text = self._encode(method, _without_data(response), max_depth)
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
        if "data" in response.get("error", ()):
            return self._encode(method, _without_data(response), max_depth)
        return self._encode(method, error_response(response["id"], INTERNAL_ERROR, *detail), max_depth)

    def fit(self, text: bytes, failures: int) -> tuple[bytes, int]:
        """Return the text of a reply and its number of errors; in place of a text over the cap an error."""
        # Only ids that are huge themselves make a reply that is still over the cap.
        if len(text) > self._max_size:
            return dumps(self._too_large(None)), 1
        return text, failures

    def _too_large(self, id: Any) -> Response:
        return error_response(id, INTERNAL_ERROR, f"the reply is over the size cap of {self._max_size} bytes")


def _without_data(response: Response) -> Response:
    error = {name: value for name, value in response["error"].items() if name != "data"}
    return {**response, "error": error}


class BatchWriter:
    """
    Writes the reply to one batch, response by response, so that not all results are in memory before the cap applies.

    Args:
        writer: Writes each response.
        room: Bytes for all of them.
        max_depth: Most arrays and objects inside one another, in a response.
        members: Members of the batch.
    """

    def __init__(self, writer: ReplyWriter, room: int, max_depth: int, members: int) -> None:
        self._writer = writer
        self._room = room
        self._max_depth = max_depth
        self._remaining = members
        self._texts: list[bytes] = []
        self._failures = 0

    def add(self, method: str | None, response: Response | None) -> None:
        """Add the response to the next member, None for a notification; ``method`` as for ``ReplyWriter.write``."""
        self._remaining -= 1
        if response is None:
            return
        room = self._room - self._remaining * _ERROR_SIZE
        text, failed = self._writer.write_within(method, response, room, self._max_depth)
        self._room -= len(text) + len(",")
        self._texts.append(text)
        self._failures += failed

    def finish(self) -> tuple[bytes | None, int]:
        """Return the reply, as ``ReplyWriter.write`` does; None instead of the bytes if there is no response at all."""
        if not self._texts:
            return None, 0
        return self._writer.fit(b"[%b]" % b",".join(self._texts), self._failures)
