"""``--log-format json``: each line of standard error is an object, of the parent and of its workers."""

from __future__ import annotations

import json
from pathlib import Path

from jsonrpc_amqp import Client

from ...command import running
from ...tools import wait_for

SERVED = """
import os, warnings
from jsonrpc_amqp import Server

server = Server(os.environ["AMQP_URL"], {service!r})

@server.method
def fail():
    warnings.warn("a warning", stacklevel=1)
    raise KeyError("\\n two lines")

@server.method
def die():
    os._exit(7)
"""


def test_each_line_is_an_object(url: str, service: str, tmp_path: Path) -> None:
    (tmp_path / "logged.py").write_text(SERVED.format(service=service))
    words = ["serve", "logged", "--workers", "2", "--log-format", "json"]
    with running(*words, url=url, cwd=tmp_path) as program, Client(url, service, timeout=30) as client:
        program.wait_until_said('"serving ', 2)
        for _ in range(2):
            client.send_raw(b'{"jsonrpc": "2.0", "method": "fail", "id": 1}')
        client.notify("die")
        wait_for(lambda: "ended with exit code 7" in program.output)
        assert program.terminate() == 0
        lines = [json.loads(line) for line in program.output.splitlines()]
    assert {line["level"] for line in lines} >= {"INFO", "WARNING", "ERROR"}
    assert {line.get("worker") for line in lines} == {None, 1, 2}
    assert len({line["process"] for line in lines}) >= 3
    failed = [line for line in lines if line.get("error") == "KeyError"]
    assert len(failed) == 2
    assert all("Traceback" in line["traceback"] for line in failed)
    assert any(line["logger"] == "py.warnings" and "a warning" in line["message"] for line in lines)
