"""The command line: real processes, a real broker."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import Client
from jsonrpc_amqp.cli import REMOTE_ERROR, TRANSPORT_ERROR

from .. import openrpc
from ..broker import Broker
from ..cli_tools import SECRET, one_line
from ..command import COMMAND, Program, is_alive, run, running, serving
from ..tools import wait_for


@pytest.fixture(scope="module")
def served(broker: Broker) -> Iterator[str]:
    """The service of one process that serves the methods of ``tests.served``."""
    with serving("tests.served:methods", "--service", "served", url=broker.url):
        yield "served"


@pytest.fixture
def refused(broker: Broker) -> str:
    """Return a URL with a password that the broker refuses."""
    return f"amqp://guest:{SECRET}@127.0.0.1:{broker.port}/"


# -- call and notify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_call_prints_the_result_alone(url: str, served: str, reply: str) -> None:
    done = run("call", "echo", '["é \\u4e2d 😀"]', "--service", served, "--reply", reply, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, '"é 中 😀"\n', "")


@pytest.mark.parametrize("where", [["--service", "served"], ["--queue", "served_req"]])
def test_describe(url: str, served: str, where: list[str]) -> None:
    done = run("describe", "echo", *where, url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("served 0\n\necho(value)\n")
    document = json.loads(run("describe", "--json", *where, url=url).stdout)
    openrpc.check(document)
    assert "echo" in [each["name"] for each in document["methods"]]


def test_params_by_name_and_the_url_on_the_command_line(url: str, served: str) -> None:
    done = run("call", "echo", '{"value": [1, 2.5, null, true, {"a": ""}]}', "--service", served, "--url", url)
    assert json.loads(done.stdout) == [1, 2.5, None, True, {"a": ""}]


def test_params_from_standard_input(url: str, served: str) -> None:
    done = run("call", "echo", "-", "--service", served, url=url, stdin='["ünï"]\n'.encode())
    assert (done.returncode, done.stdout) == (0, '"ünï"\n')


def test_what_steers_a_terminal_is_escaped_and_still_the_same_json(url: str, served: str) -> None:
    text = "\x1b[2J \x7f \x9b31m \u202e \u2028 \n"
    done = run("call", "echo", "-", "--service", served, url=url, stdin=json.dumps([text]).encode())
    assert json.loads(done.stdout) == text
    assert one_line(done.stdout)


# Marks of direction, a byte order mark, a tag, a space that is none of ASCII, and what has no character.
UNPRINTABLE = "\u200e\u200f\u061c\ufeff\U000e0041\u00a0\u200b\x7f\t\n\U0010ffff"


def test_what_cannot_be_printed_is_escaped_and_still_the_same_json(url: str, served: str) -> None:
    value = {f"é{UNPRINTABLE}中😀": [UNPRINTABLE, {}]}
    done = run("call", "echo", "-", "--service", served, url=url, stdin=json.dumps([value]).encode())
    assert json.loads(one_line(done.stdout)) == value
    assert "é" in done.stdout
    assert "中😀" in done.stdout
    assert "\\udb40\\udc41" in done.stdout


def test_an_error_of_the_method_is_json_on_standard_error(url: str, served: str) -> None:
    done = run("call", "fail", "--service", served, url=url)
    assert (done.returncode, done.stdout) == (REMOTE_ERROR, "")
    assert json.loads(one_line(done.stderr)) == {"code": 77, "message": "not \x1b[31mred\x9b", "data": {"why": "é"}}


def test_an_unknown_method(url: str, served: str) -> None:
    done = run("call", "no.such", "--service", served, url=url)
    assert (done.returncode, json.loads(done.stderr)["code"]) == (1, -32601)


def test_notify(url: str, service: str, tmp_path: Path) -> None:
    file = tmp_path / "record"
    with serving("tests.served:methods", "--service", service, url=url, env={"RECORD": str(file)}):
        done = run("notify", "record", "[8]", "--service", service, url=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        wait_for(lambda: file.exists() and file.read_text() == "8\n")


def test_serve_with_a_policy_of_its_own(broker: Broker, url: str, service: str) -> None:
    policy = ["--queue-type", "quorum", "--delivery-limit", "3", "--dead-letters"]
    methods = ["--redelivery", "refuse", "--ack", "early"]
    with serving(
        "tests.served:methods", "--service", service, *policy, *methods, "--workers", "2", url=url, processes=2
    ):
        assert run("call", "echo", "[1]", "--service", service, "--persistent", url=url).stdout == "1\n"
    queues = {row["name"]: row for row in broker.list("queues", "name", "type", "arguments")}
    arguments = {name: value for name, _type, value in queues[f"{service}_req"]["arguments"]}
    assert arguments["x-delivery-limit"] == 3
    assert arguments["x-dead-letter-exchange"] == f"{service}_dead"
    assert queues[f"{service}_dead"]["type"] in ("quorum", "rabbit_quorum_queue")


@pytest.mark.parametrize("command", ["call", "notify"])
def test_a_service_that_was_never_set_up(url: str, service: str, command: str) -> None:
    began = time.monotonic()
    done = run(command, "time.now", "--service", service, "--timeout", "20", url=url)
    assert time.monotonic() - began < 10
    assert (done.returncode, done.stdout) == (TRANSPORT_ERROR, "")
    assert service in one_line(done.stderr)


def test_a_service_whose_servers_are_down(url: str, service: str) -> None:
    with serving("tests.served:methods", "--service", service, url=url) as server:
        assert server.terminate() == 0
    done = run("call", "echo", "[1]", "--service", service, "--timeout", "1", url=url)
    assert done.returncode == 3
    assert "0 consumers" in one_line(done.stderr)


@pytest.mark.parametrize("command", ["call", "notify"])
def test_refused_credentials(refused: str, command: str) -> None:
    done = run(command, "time.now", "--service", "example", url=refused)
    assert done.returncode == 3
    assert "refused" in one_line(done.stderr)


# -- demo -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_a_broker", [False, True])
def test_demo_as_a_command(url: str, on_a_broker: bool) -> None:
    done = run("demo", *(["--url", url] if on_a_broker else []))
    assert (done.returncode, done.stderr) == (0, "")
    *_, answer = done.stdout.splitlines()
    shown = time.mktime(time.strptime(answer.partition("answered: ")[2]))
    assert abs(shown - time.time()) < 10


# -- serve ------------------------------------------------------------------------------------------------


def call_from_threads(url: str, service: str, method: str, count: int) -> list[Any]:
    with Client(url, service=service, timeout=20) as client, ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda number: client.call(method, [number]), range(count)))


def test_three_workers_share_a_thousand_calls(url: str, service: str) -> None:
    with serving(
        "tests.served:methods", "--service", service, "--workers", "3", "--url", url, url="amqp://unused", processes=3
    ) as server:
        answers = call_from_threads(url, service, "process", 1000)
        assert [number for _pid, number in answers] == list(range(1000))
        shares = Counter(pid for pid, _number in answers)
        assert set(shares) == set(workers_of(server))
        assert min(shares.values()) >= 150
        for pid in shares:
            # It may hold a password, and other users can read it.
            assert b"amqp://" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert server.terminate() == 0
        assert not any(map(is_alive, shares))


def test_a_worker_killed_five_times_is_restarted_five_times(url: str, service: str) -> None:
    with serving("tests.served:methods", "--service", service, "--workers", "1", url=url) as server:
        for times in range(1, 6):
            os.kill(workers_of(server)[-1], signal.SIGKILL)
            server.wait_until_said(": serving '", times + 1)
        assert server.output.count("was ended by signal 9") == 5
        with Client(url, service=service, timeout=5) as client:
            assert client.call("process", [1]) == [workers_of(server)[-1], 1]
        assert len(set(workers_of(server))) == 6
        assert server.terminate() == 0


def test_one_of_two_supervisors_is_stopped_under_load(url: str, service: str, tmp_path: Path) -> None:
    file = tmp_path / "record"
    target = ["tests.served:methods", "--service", service, "--workers", "2"]
    with (
        serving(*target, url=url, processes=2, env={"RECORD": str(file)}) as stopped,
        serving(*target, url=url, processes=2, env={"RECORD": str(file)}),
        ThreadPoolExecutor(1) as thread,
    ):
        answers = thread.submit(call_from_threads, url, service, "record", 300)
        wait_for(lambda: file.exists() and file.read_text().count("\n") >= 50)
        # Some process managers signal all processes of a service. The signal that the supervisor passes on then must
        # not count as the second one, which would end its workers at once.
        for pid in workers_of(stopped):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.01)
        assert stopped.terminate() == 0
        assert not answers.done(), "the load ended too early to show anything"
        assert answers.result(20) == list(range(300))
    assert sorted(map(int, file.read_text().split())) == list(range(300))


def test_workers_drain_when_their_parent_is_killed(url: str, service: str) -> None:
    with serving("tests.served:methods", "--service", service, "--workers", "1", url=url) as server:
        server.process.kill()
        server.wait()
        wait_for(lambda: not any(map(is_alive, workers_of(server))))


def test_a_worker_without_a_parent_ends(url: str, service: str) -> None:
    # Its lifeline is standard input here, which is at its end before there is anything to serve.
    done = run("serve", "tests.served:methods", "--service", service, "--worker", "1", "0", "1", "1", url=url)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("log_level", ["debug", "info", "error"])
def test_serve_with_refused_credentials(refused: str, log_level: str) -> None:
    done = run("serve", "tests.served:methods", "--service", "s", "--log-level", log_level, url=refused)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert log_level == "debug" or "refused" in one_line(done.stderr)


def test_workers_with_refused_credentials(refused: str) -> None:
    done = run("serve", "tests.served:methods", "--service", "s", "--workers", "2", url=refused)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


def test_a_queue_with_other_properties(broker: Broker, url: str, service: str) -> None:
    with serving("tests.served:methods", "--service", service, url=url) as server:
        assert server.terminate() == 0
    done = run("serve", "tests.served:methods", "--service", f"{service}x", "--exchange", "amq.direct", url=url)
    assert done.returncode == 3
    assert "amq.direct" in one_line(done.stderr)


MODULE_WITH_ONE_SERVER = """
import os
from jsonrpc_amqp import Server
server = Server(os.environ["AMQP_URL"], service=os.environ["NAME"])
same = server

@server.method
def hello(name):
    return "hello " + name
"""

MODULE_WITH_METHODS = """
from jsonrpcserver import method, Success

@method
def hello(name):
    return Success("hello " + name)
"""


# As pip writes it; its folder is then the first place to import from, not the working directory.
SCRIPT = """
import sys
from jsonrpc_amqp.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("source", "named", "is_script"),
    [(MODULE_WITH_ONE_SERVER, False, False), (MODULE_WITH_METHODS, True, True)],
    ids=["one-server", "methods"],
)
def test_a_module_in_the_working_directory(
    url: str, service: str, tmp_path: Path, source: str, named: bool, is_script: bool
) -> None:
    (tmp_path / "my_methods.py").write_text(source)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/jsonrpc-amqp").write_text(SCRIPT)
    program = [sys.executable, "bin/jsonrpc-amqp"] if is_script else COMMAND
    args = ["serve", "my_methods", *(["--service", service] if named else [])]
    with running(*args, url=url, cwd=tmp_path, program=program, env={"NAME": service}) as server:
        server.wait_until_said(": serving '")
        assert run("call", "hello", '["you"]', "--service", service, url=url).stdout == '"hello you"\n'
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0


def test_the_log_tells_workers_apart(url: str, service: str) -> None:
    with serving("tests.served:methods", "--service", service, "--workers", "2", url=url, processes=2) as server:
        assert set(re.findall(r"\[worker (\d), process \d+\].*: serving ", server.output)) == {"1", "2"}


def workers_of(server: Program) -> list[int]:
    """Return the process ids of all workers so far, the latest last."""
    return [int(pid) for pid in re.findall(r"worker \d+ is process (\d+)", server.output)]


# -- queues by name, and dialects -----------------------------------------------------------------------------


def test_call_a_queue(url: str, served: str) -> None:
    done = run("call", "echo", "[1]", "--queue", f"{served}_req", url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    done = run("call", "echo", "[1]", "--queue", f"{served}_absent", url=url)
    assert done.returncode == 3
    assert "no queue" in one_line(done.stderr)
