"""The parts of a docstring."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.jsonrpc.docstrings import Docstring, parse


def test_all_parts() -> None:
    found = parse(
        """
        Move items
        from here to there.

        They stay the same.

            move(1, 2)

        Args:
            sku, code: What to move: its name,
                or its number.
            count (int, optional): How many.
            *more: Further ones.
            untold:

        Returns:
            True: it was moved. Otherwise
            False.

        Note:
            It takes a while.

        Raises:
            OutOfStock: There are none.
            errors.Closed
        """
    )
    assert found == Docstring(
        "Move items from here to there.",
        "They stay the same.\n\n    move(1, 2)\n\nNote:\n    It takes a while.",
        {
            "sku": "What to move: its name, or its number.",
            "code": "What to move: its name, or its number.",
            "count": "How many.",
            "more": "Further ones.",
            "untold": "",
        },
        "True: it was moved. Otherwise False.",
        {"OutOfStock": "There are none.", "errors.Closed": ""},
    )


@pytest.mark.parametrize("text", [None, "", "  \n  "])
def test_there_is_none(text: str | None) -> None:
    assert parse(text) == Docstring("", "", {}, "", {})


def test_another_style_is_a_description() -> None:
    found = parse("Add.\n\n:param a: One.\n:raises KeyError: never")
    assert found == Docstring("Add.", ":param a: One.\n:raises KeyError: never", {}, "", {})


def test_a_title_needs_its_line() -> None:
    assert parse("Returns: the time.\n\nRaises: nothing.") == Docstring(
        "Returns: the time.", "Raises: nothing.", {}, "", {}
    )


def test_what_follows_a_section_without_an_indent_is_description() -> None:
    assert parse("Add.\n\nArgs:\n    a: One.\nAnd more.") == Docstring("Add.", "And more.", {"a": "One."}, "", {})
