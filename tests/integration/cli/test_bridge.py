"""Wrong usage of ``jsonrpc-amqp bridge``, and its headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from jsonrpc_amqp.cli.bridge import parse_headers
from jsonrpc_amqp.cli.common import WrongUsage

from .conftest import Invoke

SECRET = "sentinel-7f3a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "127.0.0.1:8000"], "http://127.0.0.1:8000/"),
        (["--to", f"ftp://user:{SECRET}@host/"], "http://127.0.0.1:8000/"),
        (["--to", f"http://user:{SECRET}@host:99999/"], "the URL of the HTTP server is malformed"),
        (["--to", f"http://user:{SECRET}@\u2100/"], "the URL of the HTTP server is malformed"),
        (["--to", f"http://user:{SECRET}@host:0/"], "http://127.0.0.1:8000/"),
        (["--to", f"http://user:{SECRET}@host/", "--header", "Authorization: x"], "not both"),
        (["--to", f"http://:{SECRET}@host/", "--header", "Authorization: x"], "not both"),
        (["--to", "http://host/", "--header", SECRET], "NAME: VALUE"),
        (["--to", "http://host/", "--header", f"X: {SECRET}\nY: z"], "printable"),
        (["--to", "http://host/", "--header", "a b: c"], "no name of an HTTP header"),
        (["--to", "http://host/", "--header", "@/no/such/file"], "No such file"),
        (["--to", "http://host/", "--timeout", "0"], "seconds"),
        (["--to", "http://host/", "--service", "a..b"], "a..b"),
    ],
)
def test_wrong_usage(invoke: Invoke, words: list[str], message: str) -> None:
    done = invoke("bridge", "--service", "s", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert SECRET not in done.stderr
    assert "Traceback" not in done.stderr


def test_headers_are_parsed_in_order(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("A: 2\n\n  B : x: y \n", encoding="utf-8")
    assert parse_headers(["A:1", f"@{file}", "C:"]) == {"A": "2", "B": "x: y", "C": ""}


def test_a_file_of_headers_that_windows_wrote(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_bytes("A: 2\r\nB: \u00e9\r\n".encode("utf-8-sig"))
    assert parse_headers([f"@{file}"]) == {"A": "2", "B": "\u00e9"}


def test_a_header_without_a_colon_is_not_shown() -> None:
    with pytest.raises(WrongUsage) as error:
        parse_headers([SECRET])
    assert SECRET not in str(error.value)
