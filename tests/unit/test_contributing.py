"""CONTRIBUTING.md names files, commands and tests that exist."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ..references import (
    PACKAGE,
    ROOT,
    missing_environments,
    missing_links,
    missing_modules,
    missing_paths,
    missing_targets,
    missing_tests,
)
from .test_layout import IMPORTS

TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


@pytest.mark.parametrize(
    "missing", [missing_paths, missing_targets, missing_environments, missing_tests, missing_modules]
)
def test_what_is_named_exists(missing: Callable[[str], list[str]]) -> None:
    assert missing(TEXT) == []


def test_links_lead_somewhere() -> None:
    assert missing_links(TEXT, ROOT) == []


ROWS = dict(re.findall(r"(?m)^\| `jsonrpc_amqp/(\w+)` \| .* \| (.*) \|$", TEXT))


def test_every_folder_of_the_package_has_its_row() -> None:
    assert set(ROWS) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


@pytest.mark.parametrize("folder", ROWS)
def test_folder_imports_what_its_row_says(folder: str) -> None:
    imported = {
        name.removeprefix("jsonrpc_amqp:").split("/")[0]
        for module, names in IMPORTS.items()
        if module.startswith(f"{folder}/")
        for name in names
        if name.startswith("jsonrpc_amqp:")
    }
    assert imported & set(ROWS) - {folder} <= set(re.findall(r"`(\w+)`", ROWS[folder]))
