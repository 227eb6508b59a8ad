"""The programs that are measured: floors, ours in its modes, other libraries; and how to install what each needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from .processes import ROOT

HERE = Path(__file__).parent
# For virtual environments of the peers, compiled programs and logs.
WORK = Path(os.environ.get("BENCH_WORK", ROOT / ".bench"))

# Versions that are known to work.
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "clients": ("aio-pika==10.2.1", "kombu==5.7.0", "pika==1.4.4", "pjrpc==2.2.0", "tinyrpc==1.1.7", "uvloop==0.23.0"),
    "celery": ("celery==5.7.0",),
    "nameko": ("nameko==2.14.1",),
    "oslo": ("oslo.messaging==18.3.1",),
    "faststream": ("faststream[rabbit]==0.7.8",),
}


class Missing(Exception):
    """Something that a case needs is not installed; the text says how to install it."""


@dataclass(frozen=True)
class Case:
    """
    A pair of server and client to measure.

    Attributes:
        name: Its name in tables.
        kind: A lower bound ("floor"), this package ("ours"), or another library ("peer").
        program: A module of this package, or "c" or "java".
        env: Its settings.
        venv: The virtual environment that it needs; None: the one of the harness.
        default: Whether it is measured where no cases are named.
        most_in_flight: The most calls in flight that it can handle.
    """

    name: str
    kind: Literal["floor", "ours", "peer"]
    program: str
    env: Mapping[str, str] = field(default_factory=dict)
    venv: str | None = None
    default: bool = True
    most_in_flight: int = 1 << 20

    def command(self) -> list[str]:
        """
        Return the command line, without role and name.

        Raises:
            Missing: Something is not installed.
        """
        if self.program == "c":
            return [str(c_floor())]
        if self.program == "java":
            return java_peer()
        python = sys.executable if self.venv is None else str(environment(self.venv))
        if self.venv is None and self.env.get("BENCH_LOOP") == "uvloop" and find_spec("uvloop") is None:
            raise Missing("no uvloop: pip install '.[bench]'")
        return [python, "-m", f"benchmarks.{self.program}"]

    def queue(self, name: str) -> str | None:
        """Return the durable queue that it leaves behind, if any."""
        if self.kind == "ours":
            return f"{name}_req"
        return name if "FL_NOTIFY" in self.env else None


def _ours(suffix: str, program: str = "peer", **env: str) -> Case:
    return Case(f"ours{suffix}", "ours", program, {f"BENCH_{name.upper()}": value for name, value in env.items()})


CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case("floor_c_topic", "floor", "c", {"FL_REPLY": "topic"}),
        Case("floor_c_direct", "floor", "c", {"FL_REPLY": "direct"}),
        Case("floor_pyamqp_topic_tuned", "floor", "floors.py_amqp", {"FL_REPLY": "topic", "FL_TUNED": "1"}),
        Case("floor_pyamqp_topic", "floor", "floors.py_amqp", {"FL_REPLY": "topic"}),
        Case("floor_pyamqp_direct", "floor", "floors.py_amqp", {"FL_REPLY": "direct"}, default=False),
        Case("floor_pyamqp_notify_tuned", "floor", "floors.py_amqp", {"FL_NOTIFY": "1", "FL_TUNED": "1"}),
        Case("floor_pyamqp_notify", "floor", "floors.py_amqp", {"FL_NOTIFY": "1"}),
        _ours(""),
        _ours("_direct", reply="direct"),
        _ours("_queue", reply="direct", route="queue"),
        # For the suite "optimizations" only; "ours" has both on.
        _ours("_no_caller_driven", caller_drives="0"),
        _ours("_no_inline", inline_jobs="0"),
        _ours("_neither", caller_drives="0", inline_jobs="0"),
        # For the suite "asyncio" only: AsyncClient; its server as that of "ours", or with methods that are async def.
        _ours("_aclient", "async_peer"),
        _ours("_aclient_uvloop", "async_peer", loop="uvloop"),
        _ours("_async", "async_peer", methods="async"),
        _ours("_aserver", "async_peer", methods="async", server="async"),
        _ours("_aserver_uvloop", "async_peer", methods="async", server="async", loop="uvloop"),
        Case("pika", "peer", "peers.pika", venv="clients"),
        Case("pika_direct", "peer", "peers.pika", {"PEER_REPLY": "direct"}, venv="clients", default=False),
        Case("tinyrpc", "peer", "peers.tinyrpc", venv="clients", most_in_flight=1),
        Case("kombu", "peer", "peers.kombu", venv="clients"),
        Case("aiopika_jsonrpc", "peer", "peers.aio_pika", venv="clients"),
        Case("aiopika_jsonrpc_uvloop", "peer", "peers.aio_pika", {"BENCH_LOOP": "uvloop"}, venv="clients"),
        Case(
            "aiopika_jsonrpc_unconfirmed",
            "peer",
            "peers.aio_pika",
            {"PEER_CONFIRM": "0"},
            venv="clients",
            default=False,
        ),
        Case("pjrpc", "peer", "peers.pjrpc", venv="clients"),
        Case("java_jsonrpc", "peer", "java"),
        Case("celery", "peer", "peers.celery", venv="celery", default=False),
        Case("nameko", "peer", "peers.nameko", venv="nameko", default=False),
        Case("oslo", "peer", "peers.oslo", venv="oslo", default=False),
        Case("faststream", "peer", "peers.faststream", venv="faststream"),
    )
}


@cache
def environment(name: str) -> Path:
    """
    Return the interpreter of a virtual environment with these peers; make it at the first call.

    Raises:
        Missing: pip could not install them.
    """
    folder = WORK / "venvs" / name
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[name])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(REQUIREMENTS[name])} into {folder}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *REQUIREMENTS[name]])
        done.write_text(wanted)
    return python


@cache
def c_floor() -> Path:
    """
    Return the floor in C; build it if its source has changed.

    Raises:
        Missing: There is no compiler, or no librabbitmq.
    """
    source, program = HERE / "floors" / "pingpong.c", WORK / "pingpong"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        if shutil.which("gcc") is None:
            raise Missing("no C compiler: apt-get install gcc libc6-dev librabbitmq-dev")
        WORK.mkdir(parents=True, exist_ok=True)
        _run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), "-lrabbitmq"],
            hint="apt-get install librabbitmq-dev",
        )
    return program


@cache
def java_peer() -> list[str]:
    """
    Return the command of the peer in Java; build it, with RabbitMQ's client from Maven, at the first call.

    Raises:
        Missing: There is no JDK, or no Maven.
    """
    hint = "apt-get install default-jdk-headless maven"
    if shutil.which("javac") is None or shutil.which("mvn") is None:
        raise Missing(f"no JDK or no Maven: {hint}")
    folder, source = WORK / "java", HERE / "peers" / "java"
    jars = folder / "jars"
    if not jars.exists():
        print(f"fetching RabbitMQ's Java client into {jars}", file=sys.stderr)
        copy = ["mvn", "-q", "-B", "-f", str(source / "pom.xml"), "dependency:copy-dependencies"]
        _run([*copy, f"-DoutputDirectory={jars}"], hint=hint)
    path = f"{jars}/*:{folder}"
    if not (folder / "JavaRpc.class").exists():
        _run(["javac", "-cp", path, "-d", str(folder), str(source / "JavaRpc.java")], hint=hint)
    return ["java", "-Xmx512m", "-cp", path, "JavaRpc"]


def java_version() -> str:
    """Return the version of RabbitMQ's Java client that is measured."""
    pom = (HERE / "peers" / "java" / "pom.xml").read_text()
    return pom.partition("<artifactId>amqp-client</artifactId>")[2].partition("<version>")[2].partition("<")[0]


def _run(command: list[str], hint: str = "") -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = next(reversed((done.stderr or done.stdout).strip().splitlines()), "without output")
        raise Missing(f"{command[0]} failed ({last}){f': {hint}' if hint else ''}")
