"""Where a password is read from, and where it must not appear."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import AccessRefused, Client, DeadLetters, InvalidName, Server

from ..broker import Broker
from ..command import COMMAND, ROOT, run, running

PASSWORD = "sentinel-9d2e"


@pytest.fixture(scope="module")
def secret_url(broker: Broker) -> Iterator[str]:
    """A URL with a correct password."""
    user = "keeper"
    broker.ctl("add_user", user, PASSWORD)
    broker.ctl("set_permissions", user, ".*", ".*", ".*")
    yield broker.url.replace("guest:guest", f"{user}:{PASSWORD}")
    broker.ctl("delete_user", user)


@pytest.fixture
def url_file(secret_url: str, tmp_path: Path) -> Path:
    path = tmp_path / "url"
    path.write_text(f"{secret_url}\n")
    path.chmod(0o600)
    return path


def started_by(pid: int) -> list[int]:
    """Return the ids of a process and all of its descendants."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(each for child in children for each in started_by(child))]


def test_no_process_that_is_started_shows_it(url_file: Path, service: str) -> None:
    options = ["--service", service, "--workers", "2", "--url-file", str(url_file), "--log-level", "debug"]
    with running("serve", "tests.served:methods", *options) as server:
        server.wait_until_said(": serving '", 2)
        processes = started_by(server.pid)
        assert len(processes) == 3
        for pid in processes:
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        done = run("call", "echo", '["x"]', "--service", service, "--url-file", str(url_file))
        assert (done.stdout, done.returncode) == ('"x"\n', 0)
        assert server.terminate() == 0
        assert PASSWORD not in server.output


@pytest.mark.parametrize("how", ["option", "environment"])
def test_workers_have_it_from_the_parent_who_read_standard_input(url_file: Path, service: str, how: str) -> None:
    options, env = (["--url-file", "-"], {}) if how == "option" else ([], {"AMQP_URL_FILE": "-"})
    command = ["serve", "tests.served:methods", "--service", service, "--workers", "2", *options]
    with running(*command, env=env, stdin=url_file) as server:
        server.wait_until_said(": serving '", 2)
        assert server.terminate() == 0


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({"AMQP_URL_FILE": "FILE"}, []),
        ({"AMQP_URL_FILE": "/no/such/file", "AMQP_URL": "amqp://u:p@127.0.0.1:1/"}, ["--url-file", "FILE"]),
        ({"AMQP_URL": "URL"}, []),
        ({"AMQP_URL": "URL", "AMQP_URL_FILE": "OTHER"}, []),
        ({"AMQP_URL_FILE": "OTHER"}, ["--url", "URL"]),
        ({}, ["--url-file", "-"]),
        ({"AMQP_URL_FILE": "-"}, []),
        # A file that is not needed is not read.
        ({"AMQP_URL_FILE": "/no/such/file"}, ["--url", "URL"]),
        ({"AMQP_URL_FILE": "/no/such/file"}, ["--url-file", "FILE"]),
        ({"AMQP_URL": "URL", "AMQP_URL_FILE": "/no/such/file"}, []),
    ],
)
def test_what_stands_nearest_counts(
    secret_url: str, url_file: Path, tmp_path: Path, service: str, variables: dict[str, str], options: list[str]
) -> None:
    other = tmp_path / "other"
    other.write_text("amqp://u:p@127.0.0.1:1/")
    names = {"FILE": str(url_file), "URL": secret_url, "OTHER": str(other)}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("AMQP_URL", None)
    env |= {name: names.get(value, value) for name, value in variables.items()}
    with Server(secret_url, service):
        command = [*COMMAND, "notify", "x", "--service", service, *(names.get(each, each) for each in options)]
        done = subprocess.run(command, env=env, input=secret_url, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o644])
@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_file_that_any_user_may_read_is_warned_of(url_file: Path, service: str, mode: int, how: str) -> None:
    url_file.chmod(mode)
    options, env = (["--url-file", str(url_file)], {}) if how == "option" else ([], {"AMQP_URL_FILE": str(url_file)})
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    env.pop("AMQP_URL", None)
    command = [*COMMAND, "call", "x", "--service", service, "--timeout", "5", *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    warned = f"warning: any user of this machine may read {url_file}, and a password in it: chmod o-r\n"
    assert done.stderr.startswith(warned) == (mode in (0o604, 0o644))
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize("content", [None, "", "\n", f"amqp://u:{PASSWORD}@h\nand more", f"\x1b[2J{PASSWORD}", "\xff"])
def test_a_file_that_is_none_is_named_and_not_shown(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    done = run("call", "x", "--service", "s", "--url-file", str(path))
    assert done.returncode == 2
    assert str(path) in done.stderr or "decode" in done.stderr
    assert PASSWORD not in done.stderr
    assert done.stderr.rstrip("\n").isprintable()


def test_one_of_both(url_file: Path) -> None:
    done = run("call", "x", "--service", "s", "--url-file", str(url_file), "--url", "amqp://localhost")
    assert (done.returncode, "one of --url and --url-file" in done.stderr) == (2, True)


def test_a_server_has_its_own(url_file: Path) -> None:
    (url_file.parent / "mine.py").write_text("import jsonrpc_amqp; server = jsonrpc_amqp.Server('memory://', 's')")
    done = run("serve", "mine", "--url-file", str(url_file), cwd=url_file.parent)
    assert (done.returncode, "drop --url-file" in done.stderr) == (2, True), done.stderr


def test_reprs_stats_and_tracebacks(broker: Broker, service: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    wrong = broker.url.replace("guest:guest", f"guest:{PASSWORD}")
    client, server, letters = Client(wrong, service), Server(wrong, service), DeadLetters(wrong, service)
    said = [repr(client), repr(server), repr(letters), str(client.stats()), str(server.stats())]
    uses: list[Callable[[], object]] = [client.start, server.start, letters.list]
    for use in uses:
        with pytest.raises(AccessRefused) as caught:
            use()
        said.append("".join(traceback.format_exception(caught.value)))
    client.close()
    server.stop()
    said.append(caplog.text)
    assert [each for each in said if PASSWORD in each] == []


def test_a_traceback_of_a_program_that_does_not_catch_it(broker: Broker) -> None:
    code = "import os, jsonrpc_amqp; jsonrpc_amqp.Client(os.environ['AMQP_URL'], 's').call('x')"
    wrong = broker.url.replace("guest:guest", f"guest:{PASSWORD}")
    done = run("-c", code, url=wrong, program=[sys.executable])
    assert "AccessRefused" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout


SECRET_URL = f"amqp://u:{PASSWORD}@h/"


@pytest.mark.parametrize("end", [Client, Server, DeadLetters])
@pytest.mark.parametrize("url", [[SECRET_URL], SECRET_URL.encode(), None])
def test_a_url_is_a_string(end: Callable[..., object], url: object) -> None:
    with pytest.raises(TypeError, match=f"URL is a string, not {type(url).__name__}") as caught:
        end(url, "calc")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda url: Client("calc", url),
        lambda url: Server("calc", url),
        lambda url: DeadLetters("calc", url),
        lambda url: Client(service=url),
        lambda url: Server(service=url),
        lambda url: Client("memory://").call("x", service=url),
        lambda url: Client("memory://").with_options(service=url),
    ],
)
@pytest.mark.parametrize("url", [SECRET_URL, SECRET_URL.replace("amqp", "amqps"), SECRET_URL.replace("@", "/@")])
def test_a_url_in_the_place_of_the_service_is_told_and_not_shown(use: Callable[[str], object], url: str) -> None:
    with pytest.raises(InvalidName, match="this is a broker's URL; the service's name belongs here") as caught:
        use(url)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("service", [[SECRET_URL], SECRET_URL.encode()])
def test_a_service_that_is_no_string_is_not_shown(service: Any) -> None:
    with pytest.raises(InvalidName, match=r"is a non-empty string, not (list|bytes)$") as caught:
        Server(service=service)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ["call", "x", "--service", SECRET_URL],
        ["dead", "list", "--service", SECRET_URL],
        ["permissions", "--service", SECRET_URL, "--server-user", "x", "--client-user", "y"],
        ["serve", "tests.served:methods", "--service", SECRET_URL],
        ["serve", SECRET_URL, "--service", "calc"],
        ["serve", "tests.served:one", "--service", SECRET_URL],
    ],
)
def test_a_url_in_the_wrong_place_of_a_command_is_not_shown(command: list[str]) -> None:
    done = run(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert PASSWORD not in done.stderr
    assert "this is a broker's URL" in done.stderr or "drop --service" in done.stderr


@pytest.mark.parametrize(
    "url", [f"amqp://u:{PASSWORD};x@h/", f"amqp://u:12;{PASSWORD}@h/", f"amqp://u:a/{PASSWORD}@h/"]
)
def test_what_is_to_be_escaped_in_a_password_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="';'") as caught:
        Client(url, "calc")
    assert PASSWORD not in str(caught.value)
