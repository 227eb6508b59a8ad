"""The checks of documents find what is missing: tried on a made-up repository and made-up texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..references import (
    missing_code,
    missing_environments,
    missing_links,
    missing_modules,
    missing_paths,
    missing_targets,
    missing_tests,
)

MODULE = """
LIMIT = 3
names: list[str] = []


def function(): ...


async def coroutine(): ...


class Class:
    MEMBER = 1

    def method(self):
        def inner(): ...

    class Inner:
        def deep(self): ...
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "package/folder/module.py": MODULE,
        "package/top.py": "",
        "tests/unit/test_it.py": "def test_it(): ...\n",
        "tests/faults/soak.py": "",
        "benchmarks/__main__.py": "",
        "Makefile": "help: ## Help\n\ttrue\n\nbench-check: tools\n\ntools:\n",
        "tox.ini": "[tox]\nenv_list = py\n[testenv]\ndeps = x\n[testenv:faults-short]\n",
        ".gitignore": "/dist/\n*.egg-info/\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "reference",
    [
        "folder/module.py",
        "top.py",
        "folder/module.py:function",
        "folder/module.py:coroutine",
        "folder/module.py:LIMIT",
        "folder/module.py:names",
        "folder/module.py:Class",
        "folder/module.py:Class.method",
        "folder/module.py:Class.MEMBER",
        "folder/module.py:Class.Inner.deep",
        "tests/unit/test_it.py:test_it",
    ],
)
def test_code_that_exists_is_found(root: Path, reference: str) -> None:
    assert missing_code(f"First `{reference}`, then more.", root / "package") == []
    assert missing_code(f"```\n| {reference} |\n```", root / "package") == []


@pytest.mark.parametrize(
    "reference",
    [
        "folder/absent.py",
        "absent/module.py",
        "module.py",
        "folder/absent.py:function",
        "folder/module.py:absent",
        "folder/module.py:Class.absent",
        "folder/module.py:Absent.method",
        "folder/module.py:method",
        "folder/module.py:Class.method.inner",
        "tests/unit/test_it.py:test_that",
        "package/folder/module.py",
    ],
)
def test_code_that_does_not_exist_is_named(root: Path, reference: str) -> None:
    assert missing_code(f"First `{reference}`, then more.", root / "package") == [
        reference.replace("absent.py:function", "absent.py")
    ]


def test_a_colon_behind_a_file_is_no_reference_to_a_name(root: Path) -> None:
    assert missing_code("`top.py`: the top; top.py: likewise; `folder/module.py:Class.`", root / "package") == []


def test_paths(root: Path) -> None:
    text = "`package/top.py`, `tests/unit/`, `package/absent.py`, no/code.py, `dist/x.py`, `absent/`, `tox.ini` `no.md`"
    assert missing_paths(text, root) == ["package/absent.py", "absent/", "no.md"]
    assert missing_paths("    pytest tests/unit/test_it.py tests/absent.py\n", root) == ["tests/absent.py"]
    assert missing_paths("```\npytest tests/unit/test_that.py::test_it\n```", root) == ["tests/unit/test_that.py"]
    assert missing_paths("`https://example.com/x.py`, `tests/*.py`, `tests/<name>.py`", root) == []


def test_targets(root: Path) -> None:
    assert missing_targets("`make help`, `make absent`, make nothing\n\n    make bench-check QUICK=1\n", root) == [
        "absent"
    ]


def test_environments(root: Path) -> None:
    text = "`tox -e py,py312,faults-short`, `tox run -e absent`, `tox -e faults-short,lint`, `tox -m pythons`"
    assert missing_environments(text, root) == ["absent", "lint"]


def test_tests(root: Path) -> None:
    text = (
        "`pytest tests/unit/test_it.py::test_it`, `tests/unit/test_it.py::test_that[case]`, `tests/absent.py::test_it`"
    )
    assert missing_tests(text, root) == ["tests/unit/test_it.py::test_that", "tests/absent.py::test_it"]


def test_modules(root: Path) -> None:
    text = (
        "`python -m benchmarks run`, `python -m tests.faults.soak`, `python -m tests.faults.absent`, `python -m build`"
    )
    assert missing_modules(text, root) == ["tests.faults.absent"]


def test_links(root: Path) -> None:
    text = (
        "# A title: here\n[a](tox.ini) [b](absent.md#x) [c](https://absent) [d](#a-title-here) [e](#absent) [f](tests/)"
    )
    assert missing_links(text, root) == ["absent.md#x", "#absent"]
