"""Who imports whom, and that what is promised to be public is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jsonrpc_amqp

PACKAGE = Path(jsonrpc_amqp.__file__).parent
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

# Each third-party library is imported in one place: its quirks stop there.
ONLY_IN = {
    "jsonrpcserver": {"jsonrpc/dispatcher"},
    "jsonrpcclient": {"jsonrpc/messages"},
    "msgspec": {"jsonrpc/text"},
    "click": {name for name in MODULES if name.startswith("cli/")},
    "aiohttp": {"http/bridge"},
    "yarl": {"http/bridge"},
    "starlette": {"http/gateway"},
    "anyio": {"http/gateway"},
    "uvicorn": {"cli/gateway"},
    "jsonrpclib": {"adapters/jsonrpclib"},
    "pjrpc": {"adapters/pjrpc"},
    "tinyrpc": {"adapters/tinyrpc"},
    "kombu": {"amqp/link"},
    "amqp": {"amqp/link"},
}
# What decides does no I/O.
PURE_FOLDERS = ("jsonrpc/", "wire/", "dialects/")
PURE = {
    *(name for name in MODULES if name.startswith(PURE_FOLDERS)),
    "errors",
    "context",
    "logs",
    "operator/permissions",
    "client/pending",
    "amqp/base",
    "amqp/codec",
    "amqp/broker_errors",
    "amqp/delivery_tracking",
}
IO = {"socket", "select", "selectors", "ssl", "subprocess", "asyncio", "signal"}


def imports(path: Path) -> Iterator[str]:
    """Give the names of the modules that a file imports, those of the package from its top."""
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


# A folder, and the folders that it must not import.
FORBIDDEN = {
    "client": {"server", "operator", "cli", "http", "adapters", "conformance"},
    "server": {"client", "operator", "cli", "http", "adapters", "conformance"},
    "jsonrpc": {"client", "server", "operator", "wire", "amqp", "runtime", "dialects"},
    "wire": {"client", "server", "operator", "jsonrpc", "runtime", "dialects"},
    "dialects": {"client", "server", "operator", "runtime"},
    "amqp": {"client", "server", "operator", "jsonrpc", "wire", "dialects", "context"},
    "runtime": {"client", "server", "operator", "jsonrpc", "wire", "dialects", "amqp", "context"},
    "operator": {"server"},
}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_folder_imports_only_what_it_may(folder: str) -> None:
    for name, found in IMPORTS.items():
        if name.startswith(f"{folder}/"):
            known = {
                each.removeprefix("jsonrpc_amqp:").split("/")[0] for each in found if each.startswith("jsonrpc_amqp:")
            }
            assert not known & FORBIDDEN[folder], (name, known & FORBIDDEN[folder])


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


def test_what_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        jsonrpc_amqp.Clients  # noqa: B018
