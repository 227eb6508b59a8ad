"""Standard streams that do not block, and their replacements."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator

import pytest

from jsonrpc_amqp.cli import streams


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, neither end of which blocks."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def test_input_that_does_not_block_is_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    late = [b"late", b""]

    def wait(*_descriptors: object) -> None:
        assert late, "waited at the end of the file"
        if data := late.pop(0):
            os.write(writer, data)
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # closes the pipe

    monkeypatch.setattr(select, "select", wait)
    with open(reader, "rb", closefd=False) as source:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        assert streams.read_standard_input() == b"late"


def test_output_that_does_not_block_is_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    filled = os.write(writer, bytes(1 << 20))
    drained: list[bytes] = []
    monkeypatch.setattr(select, "select", lambda *_: drained.append(os.read(reader, filled)))
    late = bytes(range(256)) * (filled // 128)  # twice what the pipe holds
    with io.BufferedWriter(streams._Raw(writer, "wb", closefd=False)) as output:
        output.write(late)
    assert b"".join(drained[1:]) + os.read(reader, filled) == late


def test_streams_that_were_replaced_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    replaced = sys.stdin, sys.stdout, sys.stderr
    with streams.StandardStreams() as standard:
        assert (sys.stdin, sys.stdout, sys.stderr) == replaced
        print("here")
        assert standard.output_error is None
    assert capsys.readouterr().out == "here\n"
