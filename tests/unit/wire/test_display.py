"""Text from URLs and from the wire, made safe for logs and errors."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jsonrpc_amqp.wire.display import printable, redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://", "amqp://"),
        ("amqp://host", "amqp://host"),
        ("amqp://host:5672/vhost", "amqp://host:5672/vhost"),
        ("amqps://[::1]:5671/%2F", "amqps://[::1]:5671/%2F"),
        ("amqp://alice@host", "amqp://alice:***@host"),
        ("amqp://alice:SECRET@host:5672/v", "amqp://alice:***@host:5672/v"),
        ("amqp://:SECRET@host", "amqp://:***@host"),
        ("amqp://alice:SECRET@", "amqp://alice:***@"),
        ("amqp://alice:SECRET%40@host", "amqp://alice:***@host"),
        ("amqp://alice:SEC@RET@host", "amqp://alice:***@host"),
        ("amqp://alice:SEC:RET@host", "amqp://alice:***@host"),
        ("amqp://a:SECRET@one;amqp://b:SECRET@two:1/v", "amqp://a:***@one;amqp://b:***@two:1/v"),
        ("amqps://host/?keyfile=SECRET&x=SECRET", "amqps://host/"),
        ("amqp://host?password=SECRET", "amqp://host"),
        ("memory://tests", "memory://tests"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "SECRET",
        "alice:SECRET@host",
        "amqp:alice:SECRET@host",
        "amqp:/alice:SECRET@host",
        "amqp://alice:SECRET",
        "amqp://alice:pwd",
        "amqp://alice:123456",
        "amqp://alice:SEC/RET@host",
        "amqp://alice:12/34@host",
        "amqp://alice:SEC?RET@host",
        "amqp://alice:12?34@host",
        "amqp://alice:SEC#RET@host",
        "amqp://alice:12#34@host",
        "amqp://alice:SEC;RET@host",
        "amqp://alice:12;34@host",
        "amqp://a@b/c:SECRET@host",
        "amqp://good:SECRET@one;SECRET",
        "amqp://host/v#SECRET",
    ],
)
def test_malformed_urls_are_masked_as_a_whole(url: str) -> None:
    assert redact(url) == "***"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from(["amqp://alice:{}@host", "amqp://alice:{}@host/v?heartbeat=1", "amqp://h;amqp://alice:{}@host"]),
)
def test_no_piece_of_a_password_is_shown(password: str, url: str) -> None:
    # Marked left and right, so that a piece of it cannot be mistaken for something else.
    assert "PWD" not in redact(url.format(f"PWD{password}PWD"))


@given(st.text("78;/?#@:%&=[]. \\\n", min_size=1, max_size=12))
@example("7;8")
@example("7/8@8")
def test_no_digit_of_a_password_passes_for_a_port(password: str) -> None:
    for url in ("amqp://alice:{}@host", "amqps://alice:{}@host:5671/v?x=1", "amqp://one;amqp://alice:{}@two"):
        shown = redact(url.format(password)).replace(":5671", "")
        assert not set("78") & set(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "'plain'"),
        ("line\nbreak\r", r"'line\nbreak\r'"),
        ("\x1b[31mred\x1b[0m", r"'\x1b[31mred\x1b[0m'"),
        ("\u202eleft", r"'\u202eleft'"),
        ("\udcff", r"'\udcff'"),
        ("\x00\x7f\x9b", r"'\x00\x7f\x9b'"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_cuts() -> None:
    assert printable("x" * 201) == f"'{'x' * 200}...'"
    assert printable("x" * 200) == f"'{'x' * 200}'"
    assert printable("x" * 20, 3) == "'xxx...'"


@given(st.text(st.characters(), max_size=50), st.integers(0, 40))
@example("\x1b]0;title\x07", 40)
@example("\u2066\u202e\u200f", 40)
def test_printable_is_one_harmless_line_of_bounded_length(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isascii()
    assert shown.isprintable()
    # Quotes and dots aside, no character takes more than the ten of "\U0001f407".
    assert len(shown) <= 10 * min(len(text), limit) + 5
