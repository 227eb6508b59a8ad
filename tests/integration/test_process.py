"""A client or server and the process around it: forks, exits, what is dropped, and a patched standard library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import jsonrpc_amqp
from jsonrpc_amqp import Client, Server

from ..broker import Broker
from ..tools import wait_for

ROOT = Path(jsonrpc_amqp.__file__).parent.parent


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(program: str, *args: str, flags: tuple[str, ...] = ("-W", "always::ResourceWarning")) -> Ended:
    """Run a program to its end."""
    ended = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(program), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def connections(broker: Broker) -> str:
    return broker.ctl("list_connections", "client_properties")


# -- forks ----------------------------------------------------------------------------------------------------------

FORKS = """
    import os, sys, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from jsonrpc_amqp import Client, Server
    url, name = sys.argv[1:]
    server = Server(url, name, methods={"ok": lambda: 1}, connection_name=f"{name}-server").start()
    client = Client(url, name, connection_name=f"{name}-client").start()
    assert client.call("ok") == 1
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print(child, flush=True)
    sys.stdin.read()
    os._exit(0)  # as a process that is killed
"""


def test_a_forked_child_does_not_hold_the_connections_of_its_parent(broker: Broker, service: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FORKS), broker.url, service],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        names = [f"{service}-server", f"{service}-client"]
        known = connections(broker)
        assert all(name in known for name in names)
        parent.stdin.close()
        assert parent.wait(60) == 0
        # Heartbeats would end them after some 25 s.
        wait_for(lambda: not any(name in connections(broker) for name in names), 12)
        os.kill(child, 0)  # while the child lives
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_a_child_that_drops_the_client_of_its_parent_leaves_its_connection_alone(url: str, service: str) -> None:
    program = """
        import gc, os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from jsonrpc_amqp import Client, Server
        url, name = sys.argv[1:]
        server = Server(url, name, methods={"ok": lambda: 1}).start()
        client = Client(url, name).start()
        assert client.call("ok") == 1
        child = os.fork()
        if child == 0:
            del client, server
            gc.collect()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert client.call("ok") == 1
        assert client.stats()["connections"] == server.stats()["connections"] == 1
        client.close()
        server.stop()
        print("done")
    """
    ended = run(program, url, service)
    assert (ended.code, ended.out, ended.err) == (0, "done\n", "")


def test_a_child_inherits_no_descriptor_that_the_parent_would_miss(url: str, service: str) -> None:
    """Whatever the child has beside what was open before is closed in it."""
    program = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from jsonrpc_amqp import Client, Server
        url, name = sys.argv[1:]

        def descriptors():
            return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}")}

        server = Server(url, name, methods={"ok": lambda: 1}).start()
        client = Client(url, name).start()
        assert client.call("ok") == 1
        child = os.fork()
        if child == 0:
            left = [name for name in descriptors().values() if name.startswith("socket:")]
            os._exit(len(left))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.close()
        server.stop()
        print("done")
    """
    ended = run(program, url, service)
    assert (ended.code, ended.out, ended.err) == (0, "done\n", "")


# -- dropped without being closed -----------------------------------------------------------------------------------


def test_a_dropped_client_warns_and_ends_with_its_thread_and_descriptors(url: str, service: str) -> None:
    program = """
        import os, sys, threading, time, warnings
        from jsonrpc_amqp import Client, Server
        url, name = sys.argv[1:]

        def until(condition):
            give_up = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < give_up
                time.sleep(0.01)

        with Server(url, name, methods={"nap": lambda s: time.sleep(s) or "slept"}):
            with Client(url, name) as client:
                client.call("nap", [0])  # what is made once is made
            before = threading.active_count(), len(os.listdir("/proc/self/fd"))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                future = Client(url, name).submit("nap", [0.5])
                print([str(each.message) for each in caught])
            assert future.result(10) == "slept"
            until(lambda: (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before)
    """
    ended = run(program, url, service)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"[\"unclosed Client of '{service}' at amqp://")
    assert "guest:guest" not in ended.out


def test_a_dropped_client_without_a_broker_ends(service: str) -> None:
    program = """
        import sys, threading, time
        from jsonrpc_amqp import Client, NotConnected
        for _ in range(3):
            try:
                Client("amqp://127.0.0.1:1/", sys.argv[1]).call("ok", timeout=0.1)
            except NotConnected as exc:
                del exc
        give_up = time.monotonic() + 20
        while threading.active_count() > 1:
            assert time.monotonic() < give_up, threading.enumerate()
            time.sleep(0.01)
    """
    ended = run(program, service)
    assert ended.code == 0, ended.err
    assert ended.err.count("ResourceWarning: unclosed Client") == 3


def test_a_dropped_server_that_serves_goes_on_with_a_warning(url: str, service: str) -> None:
    program = """
        import sys, time
        from jsonrpc_amqp import Client, Server
        url, name = sys.argv[1:]
        Server(url, name, methods={"ok": lambda: 1}).start()
        with Client(url, name) as client:
            for _ in range(20):
                assert client.call("ok") == 1
                time.sleep(0.01)
        print("done")
    """
    ended = run(program, url, service)
    assert (ended.code, ended.out) == (0, "done\n")
    assert ended.err.count(f"ResourceWarning: unclosed Server of '{service}' at amqp://") == 1


def test_a_dropped_server_that_never_served_ends(broker: Broker, service: str) -> None:
    program = """
        import sys, threading, time
        from jsonrpc_amqp import AccessRefused, NotConnected, Server
        refused, nowhere, name = sys.argv[1:]
        for url in (refused, nowhere):
            try:
                Server(url, name, methods={"ok": lambda: 1}).start(timeout=5 if url == refused else 0.1)
            except (AccessRefused, NotConnected) as exc:
                print(type(exc).__name__)
                del exc
        give_up = time.monotonic() + 20
        while threading.active_count() > 1:
            assert time.monotonic() < give_up, threading.enumerate()
            time.sleep(0.01)
    """
    refused = broker.url.replace("guest:guest", "guest:wrong")
    ended = run(program, refused, "amqp://127.0.0.1:1/", service)
    assert (ended.code, ended.out) == (0, "AccessRefused\nNotConnected\n"), ended.err
    # Of the one that goes on trying; of the other the program knows that it gave up.
    assert ended.err.count("ResourceWarning: unclosed Server") == 1


@pytest.mark.parametrize("closes", [True, False])
def test_a_program_that_ends_without_closing_warns(url: str, service: str, closes: bool) -> None:
    program = """
        import atexit, sys
        from jsonrpc_amqp import Client, Server
        url, name, closes = sys.argv[1:]
        server = Server(url, name)
        client = Client(url, name, timeout=10)
        if closes == "True":
            atexit.register(server.stop)
            atexit.register(client.close)

        @server.method("ok")
        def ok():
            return server.service

        server.start()
        print(client.call("ok") == name)
    """
    ended = run(program, url, service, str(closes))
    assert (ended.code, ended.out) == (0, "True\n")
    for kind in ("Client", "Server"):
        assert ended.err.count(f"ResourceWarning: unclosed {kind} of '{service}'") == (0 if closes else 1)
    if closes:
        assert ended.err == ""


# -- a patched standard library -------------------------------------------------------------------------------------


def test_it_works_without_poll(url: str, service: str) -> None:
    """As eventlet leaves it, and gevent for some versions."""
    program = """
        import select, sys
        del select.poll
        from jsonrpc_amqp import Client, Server
        url, name = sys.argv[1:]
        with Server(url, name, methods={"add": lambda a, b: a + b}), Client(url, name) as client:
            assert [client.call("add", [number, 1]) for number in range(200)] == list(range(1, 201))
            futures = [client.submit("add", [number, 1]) for number in range(200)]
            assert [future.result(10) for future in futures] == list(range(1, 201))
        print("done")
    """
    ended = run(program, url, service)
    assert (ended.code, ended.out, ended.err) == (0, "done\n", "")


# -- a right that is taken away -------------------------------------------------------------------------------------


def test_a_right_to_declare_that_is_taken_away_costs_no_connection(
    broker: Broker, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    user = f"u{service}"
    broker.ctl("add_user", user, user)
    broker.ctl("set_permissions", user, ".*", ".*", ".*")
    url = broker.url.replace("guest:guest", f"{user}:{user}")
    release = threading.Event()
    with (
        Server(url, service, methods={"ok": lambda: 1, "wait": lambda: release.wait(100)}) as server,
        Client(url, service, timeout=100) as client,
    ):
        assert client.call("ok") == 1
        running = client.submit("wait")  # a client redeclares while a call is pending
        broker.ctl("set_permissions", user, "^$", ".*", ".*")
        # The broker remembers what a channel was allowed; an error makes it another channel.
        sessions: list[Any] = [client._requests.life.session, server._lifecycle.session]
        for session in sessions:
            session.inspect("no-such-queue", lambda _facts: None)
        wait_for(lambda: caplog.text.count("is not declared again on this connection") == 2, 60)
        for _ in range(3):
            time.sleep(1)  # as long as between two declarations of the server
            assert client.call("ok") == 1
        release.set()
        assert running.result(30) is True
        for stats in (client.stats(), server.stats()):
            assert stats["connections"] == 1
        assert "is gone" not in caplog.text
        assert caplog.text.count("is not declared again on this connection") == 2  # once each
