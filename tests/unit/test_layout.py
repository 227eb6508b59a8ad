"""Who imports whom, and that what is promised to be public is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import jsonrpc_amqp
from jsonrpc_amqp.jsonrpc import inspection

PACKAGE = Path(jsonrpc_amqp.__file__).parent
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

# Each third-party library is imported in one place: its quirks stop there.
ONLY_IN = {
    "jsonrpcserver": {"jsonrpc/invocation"},
    "jsonrpcclient": {"jsonrpc/messages"},
    "msgspec": {"jsonrpc/class_defaults", "jsonrpc/conversion", "jsonrpc/schemas", "jsonrpc/text"},
    "pydantic": {"jsonrpc/pydantic_types"},
    "pydantic_core": {"jsonrpc/pydantic_types"},
    "click": {name for name in MODULES if name.startswith("cli/")}
    - {"cli/description", "cli/interpreter", "cli/log_lines", "cli/streams", "cli/systemd"},
    "aiohttp": {"http/upstream"},
    "yarl": {"http/upstream"},
    "starlette": {"http/gateway"},
    "anyio": {"http/gateway"},
    "uvicorn": {"http/http_server"},
    "jsonrpclib": {"adapters/jsonrpclib"},
    "pjrpc": {"adapters/pjrpc"},
    "tinyrpc": {"adapters/tinyrpc"},
    "kombu": {"amqp/py_amqp"},
    "amqp": {"amqp/py_amqp"},
}
# What decides does no I/O.
PURE_FOLDERS = ("jsonrpc/", "wire/", "dialects/")
PURE = {
    *(name for name in MODULES if name.startswith(PURE_FOLDERS)),
    "errors",
    "application_errors",
    "context",
    "logs",
    "options",
    "operator/letter",
    "operator/permissions",
    *(f"http/{name}" for name in ("headers", "limits", "origins")),
    *(
        f"client/{name}"
        for name in (
            "addresses",
            "attempts",
            "call",
            "consumer_checks",
            "inspections",
            "pending",
            "replies",
            "reply_bindings",
            "retries",
            "timeouts",
        )
    ),
    *(f"server/{name}" for name in ("inline_policy", "job", "redelivery", "restarts")),
    "amqp/back_off",
    "amqp/base",
    "amqp/heartbeat",
    "amqp/frames",
    "amqp/encoder",
    "amqp/decoder",
    "amqp/broker_errors",
    "amqp/delivery_tracking",
    "amqp/tables",
}
IO = {"socket", "select", "selectors", "ssl", "subprocess", "asyncio", "signal"}


def imports(path: Path) -> Iterator[str]:
    """Yield the names of the modules that a file imports; those of the package with their path from its top."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - (node.level - 1)]
            module = "/".join([*base, *(node.module or "").split(".")]).strip("/")
            yield f"jsonrpc_amqp:{module}"
            yield from (f"jsonrpc_amqp:{module}/{alias.name}".replace(":/", ":") for alias in node.names)


IMPORTS = {name: set(imports(path)) for name, path in MODULES.items()}


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_in_one_module(library: str) -> None:
    importers = {name for name, found in IMPORTS.items() if any(each.split(".")[0] == library for each in found)}
    assert importers == ONLY_IN[library]


def test_what_decides_does_no_io() -> None:
    for name in PURE:
        assert not {each.split(".")[0] for each in IMPORTS[name]} & IO, name


def test_who_starts_threads() -> None:
    """
    A connection and a client know no thread: a runtime drives them.

    But for a future: a signal handler that interrupted the thread that waits for it cannot wake that thread.
    """
    starters = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "threading.Thread"
    }
    assert starters == {
        "client/futures",
        "runtime/daemons",
        "server/executor",
        "server/isolation",
        "server/signals",
        "server/worker",
        "http/upstream",
        "adapters/tinyrpc",
        "cli/systemd",
    }


# A folder, and the folders that it may import, beside what all may.
FOR_ALL = {"", "errors", "application_errors", "context", "logs", "options", "version"}
ALLOWED = {
    "jsonrpc": set[str](),
    "runtime": set[str](),
    "amqp": {"runtime"},
    "wire": {"amqp"},
    "dialects": {"jsonrpc", "wire", "amqp"},
    "client": {"jsonrpc", "wire", "dialects", "amqp", "runtime"},
    "server": {"jsonrpc", "wire", "dialects", "amqp", "runtime"},
    "operator": {"client", "jsonrpc", "wire", "amqp"},
    "adapters": {"client", "server", "jsonrpc"},
    "http": {"client", "jsonrpc", "wire", "runtime"},
    "conformance": {"wire", "amqp"},
    "cli": {"operator", "http", "conformance", "server", "demo"},
}
# Of the folders below, these modules only.
ONLY_BASE = {"wire", "dialects"}


def test_each_folder_has_a_rule() -> None:
    assert {name.split("/")[0] for name in MODULES if "/" in name} == set(ALLOWED)


@pytest.mark.parametrize("folder", ALLOWED)
def test_folder_imports_only_what_it_may(folder: str) -> None:
    sources = {name: path.read_text() for name, path in MODULES.items()}
    for name in (name for name in MODULES if name.startswith(f"{folder}/")):
        # ``from .. import Client``: the public names, which stand in the package itself.
        found = {each.removesuffix("__init__").rstrip("/") for each in edges(name, sources)}
        folders = {each.split("/")[0] for each in found}
        assert folders <= ALLOWED[folder] | FOR_ALL | {folder}, name
        if folder in ONLY_BASE:
            assert {each for each in found if each.startswith("amqp")} <= {"amqp/base"}, name


# -- import cycles ----------------------------------------------------------------------------------------------------


def edges(name: str, sources: Mapping[str, str]) -> set[str]:
    """
    Return the modules of the package that a module imports anywhere in it, for type checkers or later included.

    A package counts (``amqp/__init__``) only if the module imports a name that is defined in it.

    Args:
        name: One of ``sources``.
        sources: The text of each module, by its path without ``.py``.
    """
    here = tuple(name.split("/")[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(sources[name])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == PACKAGE.name:
                    found.add(_module(tuple(rest), sources))
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, here)
            if base is not None:
                found.update(_imported_from(base, [alias.name for alias in node.names], sources))
    return found - {name}


def _base(node: ast.ImportFrom, here: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the path of the module that stands after ``from``; None: it is of another package."""
    words = tuple(node.module.split(".")) if node.module else ()
    if node.level:
        return (*here[: len(here) - (node.level - 1)], *words)
    return words[1:] if words[:1] == (PACKAGE.name,) else None


def _imported_from(base: tuple[str, ...], names: list[str], sources: Mapping[str, str]) -> Iterator[str]:
    if "/".join(base) in sources:
        yield "/".join(base)
        return
    package = "/".join((*base, "__init__"))
    defined = _defined(sources[package])
    for name in names:
        submodule = _module((*base, name), sources, or_else="")
        if submodule:
            yield submodule
        if name in defined or not submodule:
            yield package


def _module(path: tuple[str, ...], sources: Mapping[str, str], or_else: str | None = None) -> str:
    for candidate in ("/".join(path), "/".join((*path, "__init__"))):
        if candidate in sources:
            return candidate
    assert or_else is not None, path
    return or_else


def _defined(source: str) -> set[str]:
    """Return the names that a module defines at its top."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        else:
            names.update(each.id for each in ast.walk(node) if isinstance(each, ast.Name))
    return names


def cycle_through(start: str, graph: Mapping[str, set[str]]) -> list[str] | None:
    """Return the shortest path from a module back to itself; None: there is none."""
    paths = deque([[start]])
    seen: set[str] = set()
    while paths:
        path = paths.popleft()
        for following in sorted(graph[path[-1]]):
            if following == start:
                return [*path, start]
            if following not in seen:
                seen.add(following)
                paths.append([*path, following])
    return None


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return one cycle, a shortest one, for each module that is in any; none twice."""
    found: dict[frozenset[str], list[str]] = {}
    for name in sorted(graph):
        cycle = cycle_through(name, graph)
        if cycle is not None:
            found.setdefault(frozenset(cycle), cycle)
    return list(found.values())


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a/x", "from .y import f", {"a/y"}),
        ("a/x", "from . import y", {"a/y"}),
        ("a/x", "from . import y as other, z", {"a/y", "a/__init__"}),
        ("a/x", "from .. import top, T", {"top", "__init__"}),
        ("a/x", "from ..b import f, y", {"b/__init__", "b/y"}),
        ("a/x", "from ..b.y import f", {"b/y"}),
        ("a/x", "from .. import b", {"b/__init__"}),
        ("a/x", "from .y import *", {"a/y"}),
        ("a/x", "from .. import *", {"__init__"}),
        ("a/x", "import jsonrpc_amqp.b.y", {"b/y"}),
        ("a/x", "import jsonrpc_amqp", {"__init__"}),
        ("a/x", "from jsonrpc_amqp.a import y", {"a/y"}),
        ("a/x", "from jsonrpc_amqp import top", {"top"}),
        ("a/x", "if TYPE_CHECKING:\n    from .y import T", {"a/y"}),
        ("a/x", "def f():\n    from .y import T", {"a/y"}),
        ("a/x", "import json, amqp.b\nfrom kombu.utils import a\nfrom . import x", set()),
        ("a/__init__", "from .x import f\nfrom ..b import y", {"a/x", "b/y"}),
        ("__init__", "from .a.x import f\nfrom . import top", {"a/x", "top"}),
        # A name that is a module, and is defined in the package as well, may be either.
        ("a/x", "from ..b import both", {"b/__init__", "b/both"}),
    ],
)
def test_edges(name: str, source: str, expected: set[str]) -> None:
    modules = ("__init__", "top", "a/__init__", "a/x", "a/y", "b/__init__", "b/y", "b/both")
    sources = {**dict.fromkeys(modules, ""), "__init__": "T = 1", "b/__init__": "from .both import both"}
    assert edges(name, {**sources, name: source}) == expected


def test_cycles_are_found() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": {"d"}, "d": {"b", "e"}, "e": set()}
    assert cycles(graph) == [["b", "c", "d", "b"]]
    assert cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b", "a"]]


def test_no_import_cycles() -> None:
    sources = {name: path.read_text() for name, path in MODULES.items()}
    found = cycles({name: edges(name, sources) for name in sources})
    lines = "\n".join(" -> ".join(cycle) for cycle in found)
    assert not found, f"modules that import one another:\n{lines}"


# -- sizes ------------------------------------------------------------------------------------------------------------

LONGEST_MODULE, LONGEST_CLASS = 500, 300
# What may be longer, by its path or its path and class ("amqp/decoder:Decoder"), and why.
LONG_MODULES: dict[str, str] = {}
LONG_CLASSES: dict[str, str] = {}


def module_lengths() -> dict[str, int]:
    return {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}


def class_lengths() -> dict[str, int]:
    """Return the number of lines of each class, its docstring and decorators included."""
    return {
        f"{name}:{node.name}": (node.end_lineno or 0) - min([node.lineno, *(d.lineno for d in node.decorator_list)]) + 1
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize(
    ("lengths", "longest", "exceptions"),
    [(module_lengths, LONGEST_MODULE, LONG_MODULES), (class_lengths, LONGEST_CLASS, LONG_CLASSES)],
    ids=["modules", "classes"],
)
def test_nothing_is_too_long(
    lengths: Callable[[], dict[str, int]], longest: int, exceptions: Mapping[str, str]
) -> None:
    too_long = {name: length for name, length in lengths().items() if length > longest}
    assert not {name: length for name, length in too_long.items() if name not in exceptions}
    assert not set(exceptions) - set(too_long), "exceptions that are no longer needed"


# -- what is imported, and what is public ------------------------------------------------------------------------------


def test_what_connects_is_imported_when_it_is_asked_for() -> None:
    # Tests on memory:// need not pay for kombu.
    code = "import sys, jsonrpc_amqp; sys.exit('kombu' in sys.modules or 'amqp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_command_line_is_on_the_public_interface() -> None:
    private = {"client", "jsonrpc", "wire", "amqp", "runtime", "context", "dialects"}
    for name in ("demo", "server/supervisor", *(each for each in MODULES if each.startswith("cli/"))):
        known = {each.removeprefix("jsonrpc_amqp:").split("/")[0] for each in IMPORTS[name]}
        assert not known & private, (name, known & private)


def test_all_is_what_can_be_imported() -> None:
    assert len(jsonrpc_amqp.__all__) == len(set(jsonrpc_amqp.__all__))
    for name in jsonrpc_amqp.__all__:
        getattr(jsonrpc_amqp, name)  # some are imported when they are asked for
    public = {name for name, value in vars(jsonrpc_amqp).items() if not name.startswith("_") and not _is_module(value)}
    assert public == set(jsonrpc_amqp.__all__)


def _is_module(value: object) -> bool:
    return type(value).__name__ == "module"


def test_version_is_the_one_that_is_packaged() -> None:
    config = (PACKAGE.parent / "setup.cfg").read_text()
    assert f"version = {jsonrpc_amqp.__version__}\n" in config


def test_a_program_that_only_calls_does_not_import_what_servers_need() -> None:
    program = (
        "import sys, jsonrpc_amqp\n"
        "jsonrpc_amqp.Client('memory://x', 'S')\n"
        "assert 'jsonrpcserver' not in sys.modules\n"
        "assert set(jsonrpc_amqp.__all__) <= set(dir(jsonrpc_amqp))\n"
        "assert all(getattr(jsonrpc_amqp, name) is not None for name in jsonrpc_amqp.__all__)\n"
        "assert 'jsonrpcserver' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_module_that_moved_is_found_under_its_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"jsonrpc_amqp\.jsonrpc\.inspection"):
        assert jsonrpc_amqp.bodies is inspection


def test_what_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        jsonrpc_amqp.Clients  # noqa: B018
