"""
A private RabbitMQ node that a test may kill, freeze and restart.

It needs the package ``rabbitmq-server`` and nothing of the system's own node: name, ports, cookie, data and logs
are its own, and it runs as the user who runs the tests.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pika

HOST = "127.0.0.1"

# Debian's wrappers on the PATH insist on root or the user "rabbitmq"; the scripts behind them do not.
DEBIAN_SCRIPTS = "/usr/lib/rabbitmq/bin"

# A boot takes 3 to 5 s on an idle machine. Less than the time limit of a test, so that the failure shows the log.
BOOT_TIMEOUT = 120.0
STARTED = "Server startup complete"
STOP_TIMEOUT = 20.0
# RabbitMQ does not report it; on a busy machine, a kill 20 ms after its declaration lost a new queue.
SETTLED = 2.0

# Below the range from which the kernel takes the ports of outgoing connections: while the node is down, no client
# can be given its port, nor connect to itself when it tries to reconnect.
PORTS = range(10_000, 32_000)

# Other programs on this machine must not cause an alarm.
CONFIG = {
    "disk_free_limit.absolute": "1MB",
    "vm_memory_high_watermark.absolute": "1GB",
    # What RabbitMQ 3 takes; 4 takes an eighth of it.
    "max_message_size": str(2**27),
    # Log to the console: its output goes to one file.
    "log.console": "true",
    "log.console.use_colors": "off",
    "log.file": "false",
}


class BrokerError(Exception):
    """The node failed; the message holds its output."""


class Broker:
    """
    One RabbitMQ node of its own.

    Args:
        extra_config: Lines for its ``rabbitmq.conf``.
        advanced_config: The text of its ``advanced.config``: an Erlang term with its full stop.
        plugins: Plugins to enable; each costs time at boot.
        cookie: The secret that the nodes of a cluster share; None: a random one.
        epmd_port: The port of a name server that other nodes use too; None: start one for this node.
    """

    def __init__(
        self,
        *,
        extra_config: Mapping[str, str] | None = None,
        advanced_config: str = "[].",
        plugins: Sequence[str] = (),
        cookie: str | None = None,
        epmd_port: int | None = None,
    ) -> None:
        self.config = CONFIG | dict(extra_config or {})
        self.advanced_config = advanced_config
        self.plugins = tuple(plugins)
        self.cookie = cookie or secrets.token_hex(16)
        self.shared_epmd_port = epmd_port
        self.port = 0
        self._ports: list[int] = []
        self.folder: Path | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self._epmd: subprocess.Popen[bytes] | None = None
        self._env: dict[str, str] = {}

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL to connect to, as the default user, who may do everything."""
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    @property
    def name(self) -> str:
        """The Erlang name of the node."""
        return self._env["RABBITMQ_NODENAME"]

    @property
    def awake(self) -> bool:
        """Whether it runs and is not frozen."""
        return self._node is not None and not self._frozen

    @property
    def frozen(self) -> bool:
        """Whether it is suspended."""
        return self._frozen

    @property
    def version(self) -> str:
        """The version of RabbitMQ."""
        return self.ctl("version").strip()

    @property
    def series(self) -> tuple[int, int]:
        """The series of RabbitMQ, such as (3, 10)."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine."""
        return self._running().pid

    @property
    def epmd_pid(self) -> int:
        """The process id of the name server that belongs to this node alone."""
        if self._epmd is None:
            raise BrokerError("the broker is not running")
        return self._epmd.pid

    @property
    def log(self) -> str:
        """What the node has logged over all of its boots; lines may be some seconds late."""
        return (self.folder / "log").read_text(errors="replace") if self.folder else ""

    def start(self) -> None:
        """
        Boot a fresh node and return when it takes connections.

        Raises:
            BrokerError: RabbitMQ is not installed, or the node did not come up.
        """
        if self._node is not None:
            raise BrokerError("the broker is running already")
        try:
            self._boot_fresh()
        except BrokerError:
            # Another process may have taken a port between its choice and its use.
            if all(map(_is_free, self._ports)):
                raise
            self._boot_fresh()

    def stop(self) -> None:
        """End the node and its name server, and remove its data. ``start`` then makes another one."""
        try:
            self.shut_down()
        finally:
            self._clean_up()

    def shut_down(self) -> None:
        """End the node in good order (SIGTERM); it keeps its data and its ports for ``restart``."""
        if self._node is None:
            return
        self.thaw()
        self._node.terminate()
        try:
            self._node.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._node.kill()
        self._reap()

    def kill(self) -> None:
        """End the node as a crash does (SIGKILL); it keeps its data and its ports for ``restart``."""
        self._running().kill()
        self._reap()

    def restart(self) -> None:
        """Boot the node again on its data and its ports, after ``shut_down`` if it still runs."""
        if self.folder is None:
            raise BrokerError("the broker was never started, or is stopped for good")
        self.shut_down()
        self._boot()

    def freeze(self) -> None:
        """Suspend the node (SIGSTOP): its connections stay open, and it sends nothing."""
        node = self._running()
        self._frozen = True
        node.send_signal(signal.SIGSTOP)
        # The signal takes effect asynchronously: each thread stops when it would run next.
        while not all(state == "T" for state in thread_states(node.pid)):
            time.sleep(0.001)

    def settle(self) -> None:
        """
        Wait until what was declared is on disk.

        RabbitMQ confirms a declaration before its database has written it to disk: a node that is killed in between
        restarts without the queue, and without the confirmed messages in it.
        """
        time.sleep(SETTLED)

    def thaw(self) -> None:
        """Resume a frozen node (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)
        self._frozen = False

    def eval(self, expressions: str) -> str:
        """
        Evaluate Erlang expressions in the node, and return the last value as text.

        By Erlang's ``erl_call``, where there is one: ``rabbitmqctl`` starts a machine each time, for most of a second.

        Raises:
            BrokerError: They cannot be parsed, or failed.
        """
        tool = _erl_call()
        if tool is None:
            return self.ctl("eval", expressions).strip()
        command = [tool, "-e", "-n", self.name, "-c", self.cookie]
        done = subprocess.run(
            command, env=self._env, input=f"{expressions}\n", capture_output=True, text=True, timeout=120
        )
        value = re.fullmatch(r"(?s)\{ok, (.*)\}\s*", done.stdout)
        if value is None:
            raise BrokerError(f"{expressions}: {done.stderr}{done.stdout}")
        return value[1]

    def add_users(self, *users: str, password: str = "secret") -> None:
        """Add users who may do everything on the virtual host "/"."""
        names = ", ".join(map(_binary, users))
        add = f'rabbit_auth_backend_internal:add_user(User, {_binary(password)}, <<"t">>)'
        self.eval(f"[{add} || User <- [{names}]].")
        for user in users:
            self.permit(user, "/")

    def permit(self, user: str, *vhosts: str) -> None:
        """Let a user do everything on some virtual hosts."""
        args = f'{_binary(user)}, VHost, <<".*">>, <<".*">>, <<".*">>, <<"t">>'
        names = ", ".join(map(_binary, vhosts))
        self.eval(f"[rabbit_auth_backend_internal:set_permissions({args}) || VHost <- [{names}]].")

    def ctl(self, *args: str, timeout: float = 120) -> str:
        """
        Run ``rabbitmqctl`` against this node and return its output.

        Raises:
            BrokerError: The command failed.
        """
        command = [_tool("rabbitmqctl"), "-q", *args]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise BrokerError(f"rabbitmqctl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def restrict_topics(self, user: str, write: str, read: str, *, exchange: str = "jsonrpc") -> None:
        """Set a user's topic permissions, for an exchange that need not exist yet (RabbitMQ 4.3 wants it to)."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            connection.channel().exchange_declare(exchange, "topic", durable=True)
        self.ctl("set_topic_permissions", user, exchange, write, read)

    def list(self, kind: str, *columns: str, timeout: float = 120) -> list[dict[str, Any]]:
        """Return the rows of ``rabbitmqctl list_<kind>``: ``list("queues", "name", "messages")``."""
        rows: list[dict[str, Any]] = json.loads(
            self.ctl(f"list_{kind}", "--formatter", "json", *columns, timeout=timeout)
        )
        return rows

    def cancel_consumers(self, queue: str, *, times: int = 1, pause: float = 0.05) -> None:
        """
        Send ``basic.cancel`` to all consumers of a queue, which the node keeps: RabbitMQ 4.3 does that when a delivery
        was not acknowledged for too long.

        Args:
            times: More than once, to those that there are then; in the background.
            pause: Seconds between two times.
        """
        once = f"""[rabbit_channel:send_command(proplists:get_value(channel_pid, Each),
                {{'basic.cancel', proplists:get_value(consumer_tag, Each), true}})
            || Each <- rabbit_amqqueue:consumers_all(<<"/">>),
                proplists:get_value(queue_name, Each) == rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)]"""
        loop = f"[begin {once}, timer:sleep({1000 * pause:.0f}) end || _ <- lists:seq(1, {times})]"
        self.eval(f"{once}." if times == 1 else f"spawn(fun () -> {loop} end).")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._node is None:
            raise BrokerError("the broker is not running")
        return self._node

    def _boot_fresh(self) -> None:
        _tool("rabbitmq-server")  # raises before anything is created
        self._ports = free_ports(3)
        self.port, epmd_port, dist_port = self._ports
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self._env = _environment(self.folder, self.port, self.shared_epmd_port or epmd_port, dist_port)
        self._write_configuration(self.folder)
        if self.shared_epmd_port is None:
            self._epmd = start_epmd(epmd_port, self._env)
        try:
            self._boot()
        except BaseException:
            self._clean_up()
            raise

    def _clean_up(self) -> None:
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
        if self.folder is not None:
            shutil.rmtree(self.folder)
            self.folder = None

    def _write_configuration(self, folder: Path) -> None:
        (folder / "home").mkdir()
        (folder / "conf.d").mkdir()
        cookie = folder / "home/.erlang.cookie"
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)
        (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in self.config.items()))
        (folder / "advanced.config").write_text(self.advanced_config)
        # The name of the node has to resolve in a bare chroot, which has no /etc/hosts.
        (folder / "inetrc").write_text('{host, {127,0,0,1}, ["localhost"]}. {lookup, [file, native]}.')
        (folder / "plugins").write_text(f"[{','.join(self.plugins)}].")

    def _boot(self) -> None:
        assert self.folder is not None
        with (self.folder / "log").open("ab") as output, _one_cpu():
            self._node = subprocess.Popen(
                [_tool("rabbitmq-server")],
                env=self._env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to the tests only, which then stop the node
            )
        try:
            self._wait_until_up(self._node)
            _all_cpus(self._node.pid)
        except BaseException:
            if self._node is not None:
                self._node.kill()
                self._reap()
            raise

    def _wait_until_up(self, node: subprocess.Popen[bytes]) -> None:
        boots = self.log.count(STARTED)
        give_up = time.monotonic() + BOOT_TIMEOUT
        # It takes connections shortly before it has started; RabbitMQ 4.0 loses direct replies in between.
        while not answers(self.port) or self.log.count(STARTED) == boots:
            if node.poll() is not None or (self._epmd is not None and self._epmd.poll() is not None):
                raise self._boot_error("RabbitMQ ended while it booted")
            if time.monotonic() > give_up:
                raise self._boot_error(f"RabbitMQ did not come up in {BOOT_TIMEOUT:.0f} s")
            time.sleep(0.02)

    def _boot_error(self, what: str) -> BrokerError:
        return BrokerError("\n".join([f"{what}. The end of its log:", *self.log.splitlines()[-80:]]))

    def _reap(self) -> None:
        """Wait for the node and for its child processes, which end once they notice its end."""
        node, self._node = self._running(), None
        self._frozen = False
        node.wait()
        # At most a second: where process 1 does not reap orphans (some containers), they stay zombies.
        give_up = time.monotonic() + 1
        while _group_exists(node.pid) and time.monotonic() < give_up:
            time.sleep(0.01)


@contextmanager
def _one_cpu() -> Iterator[None]:
    """
    Have processes that are started here run on one processor.

    Threads of a node that boots hand each file that they read to each other. On a virtual machine with two processors
    that takes half of the time, and of the work.
    """
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(usual)[os.getpid() % len(usual)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def _all_cpus(pid: int) -> None:
    """Let all threads of a process run on the processors that this one may use."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), os.sched_getaffinity(0))


def _tool(name: str) -> str:
    path = shutil.which(name, path=DEBIAN_SCRIPTS) or shutil.which(name)
    if path is None:
        raise BrokerError("RabbitMQ is not installed: run `apt-get install rabbitmq-server`, or `make test`")
    return path


@cache
def _erl_call() -> str | None:
    found = shutil.which("erl_call")
    return found or next(map(str, Path("/usr/lib/erlang").glob("erts-*/bin/erl_call")), None)


def _binary(text: str) -> str:
    """Return a text as Erlang writes it as a binary."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    ascii_only = "".join(each if each.isascii() else f"\\x{{{ord(each):x}}}" for each in escaped)
    return f'<<"{ascii_only}"/utf8>>'


def _environment(folder: Path, port: int, epmd_port: int, dist_port: int) -> dict[str, str]:
    """Return the environment of a node, without the variables that the machine sets for another one."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
    return inherited | {
        "HOME": f"{folder}/home",
        "LC_ALL": "C.UTF-8",
        "ERL_CRASH_DUMP_SECONDS": "0",  # none
        "ERL_INETRC": f"{folder}/inetrc",
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_NODENAME": f"t{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_MNESIA_BASE": f"{folder}/data",
        "RABBITMQ_LOG_BASE": f"{folder}/data",
        "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        "RABBITMQ_CONFIG_FILES": f"{folder}/conf.d",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +A 16 -kernel inet_dist_use_interface {127,0,0,1}",
        # rabbitmqctl runs Erlang nodes too: give them any free port, since the default is a range of eleven.
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        # The start script then replaces itself with the node, instead of running it as a child.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def start_epmd(port: int, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the name server of Erlang nodes in the foreground, as a child process."""
    return subprocess.Popen(["epmd", "-address", HOST, "-port", str(port)], env=env)


def free_ports(count: int) -> list[int]:
    """Return ports that no process listens on now."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(PORTS)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As RabbitMQ does: connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def thread_states(pid: int) -> list[str]:
    """Return the states of a process's threads, each a letter of ``/proc/PID/stat``: ``T`` for one that is stopped."""
    return [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]


def answers(port: int) -> bool:
    """Return whether a broker accepts AMQP 0-9-1: its first frame is of type 1, ``connection.start``."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"
    except OSError:
        return False


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
