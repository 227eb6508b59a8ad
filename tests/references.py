"""
Finds what a document refers to and the repository does not have: code, paths, make targets, tox environments, tests.

References are read from code only, that is from text in backticks and from indented or fenced blocks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from configparser import RawConfigParser
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jsonrpc_amqp"
# Paths that begin with one of these are relative to the repository, all others in docs/architecture.md to the package.
TOP = ("tests/", "docs/", "examples/", "benchmarks/", "tools/")

_BLOCK = re.compile(r"(?ms)^ *```.*?^ *```|^(?: {4}|\t)[^\n]*$|`[^`\n]+`")
_PATH = re.compile(
    r"(?<![\w./:@*<{-])(?:[\w.-]+/)*[\w.-]+(?:/|\.(?:py|md|in|ini|cfg|toml|txt|json|sh|yaml))(?![\w/*.<{-])"
)
_CODE = re.compile(r"(?<![\w./:@-])((?:\w+/)*\w+\.py)(?::([A-Za-z_][\w.]*\w))?")


def code_in(text: str) -> str:
    """Return the parts of a Markdown text that are code, one a line."""
    return "\n".join(found.strip("`") for found in _BLOCK.findall(text))


def missing_code(text: str, package: Path = PACKAGE) -> list[str]:
    """
    Return the references to code that lead nowhere.

    Args:
        text: Markdown. ``folder/file.py`` and ``folder/file.py:name`` are references, anywhere in it; a name is a
            function, a class or a constant of the module, or ``Class.method``.
        package: The folder that paths are relative to; those that begin with a folder of ``TOP`` are relative to its
            parent.
    """
    missing = []
    for path, name in _CODE.findall(text):
        file = (package.parent if path.startswith(TOP) else package) / path
        if not file.is_file():
            missing.append(path)
        elif name and name not in defined_in(file):
            missing.append(f"{path}:{name}")
    return missing


@cache
def defined_in(file: Path) -> frozenset[str]:
    """Return the names that a file defines: ``function``, ``Class``, ``Class.method``, ``CONSTANT``."""
    return frozenset(_names(ast.parse(file.read_text("utf-8")).body))


def _names(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{name}" for name in _names(node.body))
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def missing_paths(text: str, root: Path = ROOT) -> list[str]:
    """Return the files and folders that are named and do not exist; those that git ignores are made by commands."""
    ignored = [line.strip("/") for line in (root / ".gitignore").read_text("utf-8").split()]
    return [
        path
        for path in _PATH.findall(code_in(text))
        if not (root / path).exists() and not any(fnmatch(path.split("/")[0], each) for each in ignored)
    ]


def missing_targets(text: str, root: Path = ROOT) -> list[str]:
    """Return the targets after ``make`` that the Makefile does not have."""
    known = set(re.findall(r"(?m)^([a-z-]+):", (root / "Makefile").read_text("utf-8")))
    return [name for name in re.findall(r"\bmake ([a-z-]+)", code_in(text)) if name not in known]


def missing_environments(text: str, root: Path = ROOT) -> list[str]:
    """Return the environments after ``tox -e`` that tox.ini does not have; ``py`` and ``py311`` are always there."""
    config = RawConfigParser()
    config.read(root / "tox.ini", "utf-8")
    known = {section.removeprefix("testenv:") for section in config.sections()}
    named = ",".join(re.findall(r"\btox(?: run)? -e ([\w,-]+)", code_in(text))).split(",")
    return [name for name in named if name and name not in known and not re.fullmatch(r"py(3\d+)?", name)]


def missing_tests(text: str, root: Path = ROOT) -> list[str]:
    """Return the pytest ids ``tests/test_x.py::test_y`` whose function does not exist."""
    ids = re.findall(r"(tests/[\w/]+\.py)::(\w+)", code_in(text))
    return [
        f"{path}::{name}" for path, name in ids if not (root / path).is_file() or name not in defined_in(root / path)
    ]


def missing_modules(text: str, root: Path = ROOT) -> list[str]:
    """Return the modules of this repository after ``python -m`` that do not exist."""
    modules = re.findall(r"\bpython -m ((?:tests|benchmarks|jsonrpc_amqp|examples)[\w.]*)", code_in(text))
    files = {name: root / name.replace(".", "/") for name in modules}
    return [
        name
        for name, file in files.items()
        if not file.with_suffix(".py").is_file() and not (file / "__main__.py").is_file()
    ]


def missing_links(text: str, folder: Path) -> list[str]:
    """Return the relative links, and the anchors of the text itself, that lead nowhere from a document in a folder."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\((?!https?://)([^)\s]+)\)", text)
    return [
        target
        for target in targets
        if not (target in anchors if target.startswith("#") else (folder / target.partition("#")[0]).exists())
    ]
