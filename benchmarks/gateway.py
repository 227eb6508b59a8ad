"""
Measures a plain call over RabbitMQ, the same call through a gateway, and through gateway and bridge.

    python benchmarks/gateway.py [AMQP_URL]

It starts everything but the broker. For each way it prints the median of one call at a time, the calls per second with
256 in flight, and the CPU time per call of gateway and bridge. It checks every reply. The load generator is Python,
too, and keeps a core busy with 256 in flight, so the CPU times are more exact than the rates.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from jsonrpc_amqp import Client

HOST = "127.0.0.1"
ONE_BY_ONE, AT_ONCE, IN_FLIGHT = 1000, 10_000, 256
HEADERS = {"Content-Type": "application/json"}
SERVER = """
import sys
from jsonrpc_amqp import Server
with Server(sys.argv[1], "bench.plain", methods={"add": lambda a, b: a + b}) as server:
    print("serving", flush=True)
    server.serve_forever()
"""
HTTP_SERVER = """
from aiohttp import web
async def respond(request):
    call = await request.json()
    return web.json_response({"jsonrpc": "2.0", "result": sum(call["params"]), "id": call["id"]})
app = web.Application()
app.router.add_post("/", respond)
web.run_app(app, host="127.0.0.1", port=0, print=lambda text: print(text, flush=True))
"""


@contextmanager
def started(sign: str, *command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program for a ``with`` block; yield it, and the rest of the first line of output that has ``sign``."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if sign in line:
                yield process, line.partition(sign)[2]
                break
        else:
            raise SystemExit(f"{command} ended: {process.wait()}")
    finally:
        process.terminate()
        process.wait()


def cpu(process: subprocess.Popen[str]) -> float:
    """Return the CPU time of a process so far, in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def body(number: int) -> bytes:
    return b'{"jsonrpc":"2.0","method":"add","params":[%d,1],"id":%d}' % (number, number)


def median(call: Callable[[int], Any]) -> float:
    """Return the median duration of one call at a time, in microseconds."""
    times = []
    for number in range(ONE_BY_ONE):
        began = time.perf_counter()
        assert call(number) == number + 1
        times.append(time.perf_counter() - began)
    return sorted(times)[ONE_BY_ONE // 2] * 1e6


def plain_rate(client: Client) -> float:
    futures: list[Future[Any]] = []
    began = time.perf_counter()
    for number in range(AT_ONCE):
        if number >= IN_FLIGHT:
            assert futures[number - IN_FLIGHT].result(30) == number - IN_FLIGHT + 1
        futures.append(client.submit("add", [number, 1]))
    assert futures[-1].result(30) == AT_ONCE
    return AT_ONCE / (time.perf_counter() - began)


def http_rate(port: int, path: str) -> float:
    async def run() -> float:
        numbers = iter(range(AT_ONCE))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS) as session:

            async def caller() -> None:
                for number in numbers:
                    async with session.post(f"http://{HOST}:{port}{path}", data=body(number)) as response:
                        assert json.loads(await response.read())["result"] == number + 1

            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
            return AT_ONCE / (time.perf_counter() - began)

    return asyncio.run(run())


def http_median(port: int, path: str) -> float:
    connection = http.client.HTTPConnection(HOST, port)

    def call(number: int) -> Any:
        connection.request("POST", path, body(number), HEADERS)
        return json.loads(connection.getresponse().read())["result"]

    return median(call)


def measure(url: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure each way in turn, and yield its name and its figures."""
    command = ["-m", "jsonrpc_amqp"]
    with ExitStack() as stack:
        stack.enter_context(started("serving", "-c", SERVER, url))
        client = stack.enter_context(Client(url, "bench.plain"))
        p50 = median(lambda number: client.call("add", [number, 1]))
        yield "a plain call", {"p50_us": p50, "rate": plain_rate(client)}
        _server, at = stack.enter_context(started(f"http://{HOST}:", "-c", HTTP_SERVER))
        to = f"http://{HOST}:{at.split()[0].rstrip('/')}/"
        bridge_command = [*command, "bridge", "--service", "bench.bridged", "--to", to, "--url", url]
        bridge, _ = stack.enter_context(started(": serving", *bridge_command))
        allow = ["--allow", "bench.plain", "--allow", "bench.bridged"]
        gateway_command = [*command, "gateway", "--listen", f"{HOST}:0", *allow, "--url", url]
        gateway, at = stack.enter_context(started(f"http://{HOST}:", *gateway_command))
        port = int(at.partition("/")[0])
        for what, path in (
            ("HTTP, gateway, service", "/bench.plain"),
            ("HTTP, gateway, bridge, HTTP", "/bench.bridged"),
        ):
            p50 = http_median(port, path)
            before = cpu(gateway), cpu(bridge)
            rate = http_rate(port, path)
            spent = [1e6 * (cpu(each) - began) / AT_ONCE for each, began in zip((gateway, bridge), before, strict=True)]
            yield what, {"p50_us": p50, "rate": rate, "gateway_cpu_us": spent[0], "bridge_cpu_us": spent[1]}


def main(url: str = "amqp://") -> None:
    """Measure and print."""
    for what, figures in measure(url):
        print(f"| {what} | {' | '.join(f'{name} {value:.0f}' for name, value in figures.items())} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
