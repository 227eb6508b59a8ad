"""How a process of this program starts another one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import jsonrpc_amqp

PACKAGE = Path(jsonrpc_amqp.__file__).parent
PROGRAM = """
import json, sys
sys.path[0:0] = {path!r}
from jsonrpc_amqp.cli.interpreter import this_program
json.dump(this_program(), sys.stdout)
"""
SEES = """
import json, sys, jsonrpc_amqp
flags = sys.flags
json.dump([flags.optimize, flags.isolated, flags.utf8_mode, sys.warnoptions, jsonrpc_amqp.__file__], sys.stdout)
"""


def started_by(*options: str, path: list[str], cwd: Path) -> list[str]:
    """Return the command by which a process with these options and this path starts another one."""
    command = [sys.executable, *options, "-c", PROGRAM.format(path=path)]
    made: list[str] = json.loads(subprocess.check_output(command, cwd=cwd))
    return made


@pytest.mark.parametrize("options", [["-O", "-W", "error::UserWarning", "-X", "utf8"], ["-I"]])
def test_it_has_the_options_of_python_and_the_path_of_its_own(options: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "jsonrpc_amqp").symlink_to(PACKAGE)
    *command, start = started_by(*options, path=[str(mine)], cwd=tmp_path)
    start = start.partition("; from jsonrpc_amqp")[0]
    optimize, isolated, utf8, warnings, file = json.loads(
        subprocess.check_output([*command, start + "\n" + SEES], cwd=tmp_path)
    )
    assert file == str(mine / "jsonrpc_amqp/__init__.py")
    if isolated:
        assert options == ["-I"]
    else:
        assert (optimize, utf8, warnings) == (1, 1, ["error::UserWarning"])


def test_files_of_the_working_directory_are_not_taken_for_modules(tmp_path: Path) -> None:
    command = started_by("-P", path=[str(PACKAGE.parent)], cwd=tmp_path)
    for name in ("queue", "calendar", "os", "click", "jsonrpc_amqp"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file in the working directory')")
    done = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"jsonrpc-amqp, version {jsonrpc_amqp.__version__}\n", done.stderr


def test_output_is_unbuffered_where_it_is_here(tmp_path: Path) -> None:
    assert "-u" in started_by("-u", path=[str(PACKAGE.parent)], cwd=tmp_path)
