"""``jsonrpc-amqp serve`` without a broker: targets that cannot be served, and a missing broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from jsonrpc_amqp.cli import NOT_DRAINED, USAGE_ERROR

from ...cli_tools import SECRET, one_line
from ...command import run, running


def test_a_missing_broker_is_waited_for(nowhere: str) -> None:
    with running("serve", "tests.served:methods", "--service", "s", url=nowhere) as server:
        server.wait_until_said("next attempt in", 2)
        assert server.terminate() == 0
        *attempts, draining, drained = server.output.splitlines()
        assert all("next attempt in" in line for line in attempts)
        assert "draining 's'; running handlers: 0" in draining
        assert drained.endswith(": drained 's'")
        assert SECRET not in server.output


@pytest.mark.parametrize(("of_environment", "is_told"), [("memory://x", False), ("memory://y", True)])
def test_a_server_with_an_url_of_its_own(of_environment: str, is_told: bool, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from jsonrpc_amqp import Server\nserver = Server('memory://x', 's')\n")
    with running("serve", "own", url=of_environment, cwd=tmp_path) as server:
        server.wait_until_said("serving 's'")
        assert server.terminate() == 0
        assert ("own is a Server, which has its own url" in server.output) is is_told


HANGING = """
import threading, time
from jsonrpc_amqp import Client, Server

class Impatient(Server):
    def serve_forever(self, **options):
        return super().serve_forever(**options | {"grace": 0.1})

server = Impatient("memory://x", service="s")

@server.method
def hang():
    print("hanging", flush=True)
    time.sleep(600)

def notify():
    with Client("memory://x", service="s", timeout=60) as client:
        while True:
            try:
                client.notify("hang")
                return
            except Exception:
                time.sleep(0.01)

threading.Thread(target=notify, daemon=True).start()
"""


def test_a_handler_that_is_left_running_is_reported(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    with running("serve", "hanging", cwd=tmp_path) as server:
        server.wait_until_said("hanging\n")
        assert server.terminate() == NOT_DRAINED
        *_, draining, warning = server.output.splitlines()
        assert "draining 's'; running handlers: 1" in draining
        assert "WARNING" in warning
        assert "1 handlers still run after 0.1 s" in warning


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["no_such_module", "--service", "s"], "no_such_module"),
        (["tests.served:missing", "--service", "s"], "missing"),
        (["tests.served:number", "--service", "s"], "int"),
        (["tests.served", "--service", "s"], "tests.served:one or tests.served:two"),
        (["tests.served:methods"], "--service"),
        (["tests.served:methods", "--service", "a b"], "a b"),
        (["tests.served:methods", "--service", "s", "--url", f"amqp://u:{SECRET}/x@h:port"], "URL"),
        (["tests.served:two", "--service", "s"], "'two'"),
        (["tests.served:two", "--queue", "q"], "--queue"),
        (["tests.served:two", "--url", f"amqp://u:{SECRET}@h"], "--url"),
        (["tests.served:two", "--concurrency", "8"], "--concurrency"),
        (["json", "--service", "s"], "nothing to serve"),
        (["json:decoder", "--service", "s"], "nothing to serve"),
    ],
)
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_target_that_cannot_be_served(args: list[str], says: str, workers: list[str]) -> None:
    done = run("serve", *args, *workers)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    assert says in one_line(done.stderr)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import missing_dependency\n", "line 1"),
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero ("),
        ("def\n", "SyntaxError"),
        ("raise RuntimeError('two\\nlines \\x1b')\n", "two\\nlines \\x1b"),
        # What this package refuses is in the line that asks for it.
        ("import jsonrpc_amqp\n\njsonrpc_amqp.Server('memory://x', 's', methods={'m': 5})\n", "broken.py, line 3"),
        (
            "from jsonrpc_amqp import Server\nserver = Server('memory://x', 's')\n@server.method\ndef m(f: range): 0\n",
            "broken.py, line 3",
        ),
    ],
)
def test_a_module_that_fails(source: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    done = run("serve", "broken", "--service", "s", cwd=tmp_path)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert says in line
    assert "broken" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe-method", "echo"], "--recipe-method need each other"),
        (["--dialect", "recipe2011"], "--recipe-method need each other"),
        (["--dialect", "recipe2011", "--recipe-method", "nosuch"], "no method 'nosuch'"),
    ],
)
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_serve_refuses_a_recipe_that_cannot_be_served(words: list[str], message: str, workers: list[str]) -> None:
    done = run("serve", "tests.served:methods", "--service", "s", *words, *workers)
    assert done.returncode == 2
    assert message in one_line(done.stderr)
