"""Adds the one type of header value to pika that it cannot encode."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pika.data

_encode_value = pika.data.encode_value


def _encode(pieces: list[bytes], value: Any) -> int:
    if not isinstance(value, float):
        return int(_encode_value(pieces, value))
    pieces.append(struct.pack(">cd", b"d", value))
    return 9


@contextmanager
def floats() -> Iterator[None]:
    """Let pika encode floats for a ``with`` block."""
    with mock.patch.object(pika.data, "encode_value", _encode):
        yield
