"""curl -> gateway -> RabbitMQ -> bridge -> jsonrpclib-pelix's HTTP server, and back; and the programs in the docs."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..broker import HOST, Broker
from ..command import ROOT
from ..http_tools import bridge, free_port, gateway, pelix
from ..tools import need, wait_for

IN_FLIGHT = 256
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def chain(broker: Broker) -> Iterator[str]:
    """Return the URL of a gateway to the service of a bridge."""
    port = free_port()
    with (
        pelix(port, "pooled"),
        bridge("curled", f"http://{HOST}:{port}/", url=broker.url),
        gateway("--allow", "curled", "--allow", "nobody.home", url=broker.url) as (_, at),
    ):
        yield f"http://{HOST}:{at}"


def curl(url: str, *words: str, body: Any = None) -> tuple[int, Any]:
    """Return status and body."""
    data = [] if body is None else ["--data-binary", body if isinstance(body, str) else json.dumps(body)]
    command = [need("curl"), "-sS", "-w", "\n%{http_code}", *data, *words, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text) if text else None


@pytest.mark.peer("curl", works="calls, notifications, a batch with a notification and an error")
@pytest.mark.peer(
    "pelix http", works="calls, notifications, a batch with a notification and an error, from curl as well"
)
def test_there_and_back(chain: str) -> None:
    call = {"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}
    told = {"jsonrpc": "2.0", "method": "tell", "params": ["curl"]}
    absent = {"jsonrpc": "2.0", "method": "absent", "id": 2}
    url = f"{chain}/curled"
    assert curl(url, "-H", JSON, body=call) == (200, {"jsonrpc": "2.0", "result": 19, "id": 1})
    assert curl(url, "-H", JSON, body=told) == (204, None)
    status, answers = curl(url, "-H", JSON, body=[call, told, absent])
    assert (status, answers[0]["result"], answers[1]["error"]["code"], len(answers)) == (200, 19, -32601, 2)
    was_told = {"jsonrpc": "2.0", "method": "was_told", "id": 3}
    wait_for(lambda: curl(url, "-H", JSON, body=was_told)[1]["result"] == ["curl", "curl"])


@pytest.mark.peer("curl", works="404, 405, 413, 415 and 504, each with a JSON-RPC error")
def test_statuses(chain: str) -> None:
    call = {"jsonrpc": "2.0", "method": "sleep", "params": [3], "id": 7}
    url = f"{chain}/curled"
    for status, code, got in (
        (404, -32004, curl(f"{chain}/nobody.home", "-H", JSON, body=call)),
        (404, -32004, curl(f"{chain}/not-allowed", "-H", JSON, body=call)),
        (405, -32600, curl(url)),
        (415, -32600, curl(url, body=call)),
        (504, -32005, curl(url, "-H", JSON, "-H", "Prefer: wait=1", body=call)),
    ):
        assert (got[0], got[1]["error"]["code"]) == (status, code)


def test_too_large(chain: str, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b" " * ((1 << 20) + 1))
    status, answer = curl(f"{chain}/curled", "-H", JSON, body=f"@{file}")
    assert (status, answer["error"]["code"]) == (413, -32600)


@pytest.mark.peer("curl", works="256 requests in flight")
def test_many_at_once(chain: str, tmp_path: Path) -> None:
    """One curl, 256 transfers in parallel, each with its own response."""
    lines = []
    for number in range(IN_FLIGHT):
        body = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": [number], "id": number})
        lines += [
            "next",
            f'url = "{chain}/curled"',
            f'header = "{JSON}"',
            f"data = {json.dumps(body)}",
            f'output = "{tmp_path}/{number}"',
        ]
    config = tmp_path / "config"
    config.write_text("\n".join(lines[1:]))
    command = [need("curl"), "-sS", "--parallel", "--parallel-immediate", "--parallel-max", str(IN_FLIGHT)]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    for number in range(IN_FLIGHT):
        answer = json.loads((tmp_path / str(number)).read_text())
        assert (answer["result"], answer["id"]) == (number, number)


# -- the pages --------------------------------------------------------------------------------------------


def programs(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(3), ids=["jsonrpclib", "tinyrpc", "pjrpc"])
def test_the_programs_about_adapters(url: str, service: str, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    text = programs("adapters.md")[number].replace('"amqp://"', repr(url)).replace('"example"', repr(service))
    exec(compile(text, "adapters.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "3\n"


def test_the_other_programs() -> None:
    """They serve for ever or need a web server, so only their syntax and their imports are checked."""
    for text in [programs("adapters.md")[3].replace("their_dispatch", "str"), programs("http.md")[1]]:
        exec(compile(text, "page", "exec"), {"__name__": "page"})
    imports = [line for line in programs("http.md")[0].splitlines() if line.startswith("from")]
    exec("\n".join(imports), {})
