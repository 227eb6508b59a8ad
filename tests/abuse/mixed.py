"""
Hostile messages of all kinds mixed, for long: ``python -m tests.abuse.mixed``, or ``tox -e mixed``.

``MIXED_MESSAGES`` (300,000) are sent by two users to two servers, while a third user calls both all the time.
``MIXED_SEED`` (random, and printed) repeats a mixture. Memory, descriptors and threads of the servers must be flat
after the first part of it (``trend.py``), and what they keep bounded. ``MIXED_WRITE=1`` records the figures for
docs/security.md.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pika
from pika.exceptions import AMQPChannelError

from jsonrpc_amqp import Client, InternalError

from ..broker import Broker
from ..command import Program, serving
from ..grown import grow
from ..security import figures
from . import patched
from .corpus import MARK, Message
from .health import FREED, memory
from .mixed_served import GUARDED, NEIGHBOUR, PLAIN, SERVER
from .mixture import DIRECT, TOKEN, Mixture
from .neighbour import Neighbour
from .trend import MOST_BLOCKS, MOST_ENTRIES, MOST_USED, WARM, Sample, children, ends, faults, sample, trend

EVE, MALLORY = "eve", "mallory"
SERVICES = (GUARDED, PLAIN)
# The broker refuses what the servers publish with other keys: the replies to Mallory.
ANSWERED = rf"^({GUARDED}|{PLAIN})\.response\.(?!{MALLORY})"
SAMPLES = 100
# Requests in a queue behind which the senders wait, and after how many messages they look.
MOST_WAITING, LOOK_AFTER = 200, 50
# Messages behind which one comes whose headers have grown on the way, and the bytes of these.
GROWN_AFTER, GROWN = 2_000, (200_000, 1_200_000)
PATIENCE = 120.0


class Sender:
    """Publishes as a hostile user, who has a queue for replies and a consumer of direct reply-to."""

    def __init__(self, url: str, user: str) -> None:
        self.user, self.rejected = user, 0
        self._url = _url(url, user)
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url + "%2F"))
        self._open()
        limits = {"x-max-length": 10, "x-max-length-bytes": 1 << 20}
        self.queue = str(self._channel.queue_declare("", exclusive=True, arguments=limits).method.queue)
        for service in SERVICES:
            self._channel.queue_bind(self.queue, "jsonrpc", f"{service}.response.{user}-{TOKEN}.#")

    def _open(self) -> None:
        self._channel: Any = self._connection.channel()
        self._channel.basic_consume(DIRECT, lambda *_: None, auto_ack=True)
        self._channel.confirm_delivery()

    def send(self, service: str, message: Message) -> None:
        """Publish a message; the broker may reject it."""
        tail = f".{self.user}-{TOKEN}.1" if message.tail is None else message.tail
        where = ("", f"{service}_req") if message.to_queue else ("jsonrpc", f"{service}.request{tail}")
        properties = {"content_type": "application/json", **message.properties}
        try:
            with patched.floats():
                self._channel.basic_publish(*where, message.body, pika.BasicProperties(**properties))
        except AMQPChannelError:
            self.rejected += 1
            self._open()

    def grow(self, service: str, size: int) -> None:
        """Publish a message whose headers grow until they have so many bytes."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url + "%2F"))
        channel = connection.channel()
        channel.confirm_delivery()
        grow(channel, b"{}", f"{service}.request.{self.user}-{TOKEN}", f"{self.user}.grown", size)
        connection.close()

    def waiting(self, service: str) -> int:
        """Return how many requests are in the queue; and drop replies that came."""
        self._connection.process_data_events(0)
        return int(self._channel.queue_declare(f"{service}_req", passive=True).method.message_count)

    def wait(self, most: int) -> None:
        """Wait until no more requests are in each queue."""
        give_up = time.monotonic() + PATIENCE
        while max(map(self.waiting, SERVICES)) > most:
            assert time.monotonic() < give_up, "the servers do not keep up"
            time.sleep(0.005)

    def close(self) -> None:
        self._connection.close()


class Observer:
    """Samples the processes of the servers."""

    def __init__(self, programs: dict[str, Program]) -> None:
        self._programs = programs
        self.pids = self._look()
        self.samples: dict[str, list[Sample]] = {name: [] for name in self.pids}
        self.kept: list[list[dict[str, int]]] = []

    def __str__(self) -> str:
        sizes = [f"{name} {each[-1].memory / (1 << 20):.1f} MiB" for name, each in self.samples.items()]
        return f"{', '.join(sizes)}, in use {self.kept[-1]}"

    def _look(self) -> dict[str, int]:
        supervisor = self._programs[GUARDED].pid
        # Those that isolate requests come and go.
        return {"plain": self._programs[PLAIN].pid, "supervisor": supervisor, "worker": min(children(supervisor))}

    def sample(self, messages: int) -> None:
        """Look at each process, which must be the one that it was."""
        for name, pid in self.pids.items():
            assert self._look()[name] == pid, f"{name} is another process"
            self.samples[name].append(sample(pid, messages))

    def count(self, clients: list[Client]) -> None:
        """Have each server count what is in use."""
        self.kept.append([client.call("kept") for client in clients])

    def in_use(self) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
        """Return what each server had in use where samples begin to count, and in the end."""
        first, last = self.kept[int(WARM * len(self.kept))], self.kept[-1]
        return dict(zip(("worker", "plain"), zip(first, last, strict=True), strict=True))

    def check(self) -> None:
        """Check that each process is the one that it was, has kept its connection, and has not grown."""
        assert self._look() == self.pids
        for program in self._programs.values():
            assert program.output.count(": serving '") == 1, "it has lost its connection"
            assert "Exception in thread" not in program.output
        found = {name: faults(samples) for name, samples in self.samples.items()}
        assert not any(found.values()), found
        for first, last in self.in_use().values():
            assert last["blocks"] <= MOST_BLOCKS * first["blocks"], (first, last)
            assert last["used"] <= MOST_USED + first["used"], (first, last)


def main(messages: int, seed: int) -> None:
    print(f"seed {seed}, {messages:,} messages", flush=True)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker())
        _add_users(broker)
        programs = {
            GUARDED: stack.enter_context(_serve(broker, "guarded", "--workers", "1")),
            PLAIN: stack.enter_context(_serve(broker, "plain")),
        }
        _limit(broker)
        # Replies over a dialect's server have no verified sender.
        clients = [
            stack.enter_context(Client(_url(broker.url, NEIGHBOUR), service, timeout=60, server_user=user))
            for service, user in ((GUARDED, SERVER), (PLAIN, None))
        ]
        neighbours = [
            stack.enter_context(Neighbour(lambda *args, client=each: client.call("visit", args))) for each in clients
        ]
        observer = Observer(programs)
        before = _broker(broker)
        kinds = _abuse(broker, random.Random(seed), messages, observer, clients)
        for each in neighbours:
            each.stop()
        _show(observer, before, _broker(broker), [each.report().calls for each in neighbours], kinds)
        try:
            entries = [client.call("tables") for client in clients]
        except InternalError:
            print(*(each.output for each in programs.values()), sep="\n")
            raise
        for name, each in zip(SERVICES, entries, strict=True):
            print(f"{name}, the largest of what it keeps: {sorted(each.items(), key=lambda one: -one[1])[:6]}")
        _record(observer, messages, seed)
        for each in neighbours:
            each.check()
        observer.check()
        for each in entries:
            large = {name: size for name, size in each.items() if size > MOST_ENTRIES}
            assert not large, large
        assert _broker(broker)["queues"] == before["queues"]
        assert not Path(MARK).exists(), "the corpus was run"
        assert [program.terminate() for program in programs.values()] == [0, 0]


def _abuse(broker: Broker, chance: random.Random, messages: int, observer: Observer, clients: list[Client]) -> int:
    """Send the messages; return of how many kinds they were."""
    senders = [Sender(broker.url, EVE), Sender(broker.url, MALLORY)]
    mixture = Mixture(chance, senders[0].queue)
    every = max(1, messages // SAMPLES)
    began = time.monotonic()
    for number in range(1, messages + 1):
        sender, service = chance.choice((*senders, senders[0])), chance.choice(SERVICES)
        sender.send(service, mixture.next(sender.user))
        if number % GROWN_AFTER == 0:
            senders[0].grow(service, chance.choice(GROWN))
        if number % LOOK_AFTER == 0:
            for each in senders:
                each.wait(MOST_WAITING)
        if number % every == 0:
            senders[0].wait(0)
            for client in clients:
                client.call("add", [1, 2])
            observer.sample(number)
            if number % (5 * every) == 0:
                observer.count(clients)
                print(f"{time.monotonic() - began:6.0f} s: {observer} after {number:,}", flush=True)
    print(f"the broker rejected {sum(each.rejected for each in senders):,} messages")
    assert mixture.is_complete or messages < 100_000, "some kinds were not sent"
    for client in clients:
        client.call("trim")
    print(f"trimmed: { {name: memory(pid) >> 10 for name, pid in observer.pids.items()} } KiB", flush=True)
    for each in senders:
        each.close()
    return len(mixture.kinds)


def _serve(broker: Broker, name: str, *options: str) -> Any:
    url = _url(broker.url, SERVER)
    return serving(f"tests.abuse.mixed_served:{name}", *options, url=url, env=FREED)


def _url(url: str, user: str) -> str:
    return url.replace("guest:guest", f"{user}:secret")


def _add_users(broker: Broker) -> None:
    broker.add_users(SERVER, NEIGHBOUR, EVE, MALLORY)
    broker.restrict_topics(SERVER, ANSWERED, ".*")


def _limit(broker: Broker) -> None:
    # As docs/security.md advises: a client can have requests kept there.
    broker.ctl("set_policy", "--apply-to", "queues", "limit", "_dead$", '{"max-length": 100}')


def _broker(broker: Broker) -> dict[str, Any]:
    """Return its queues that outlive a connection, and MiB of its memory."""
    rows = broker.list("queues", "name", "exclusive")
    queues = sorted(str(each["name"]) for each in rows if not each["exclusive"])
    return {"queues": queues, "MiB": round(memory(broker.pid) / (1 << 20))}


def _show(observer: Observer, before: dict[str, Any], after: dict[str, Any], calls: list[int], kinds: int) -> None:
    print(f"{kinds} kinds; {sum(calls):,} calls of the neighbour")
    print(f"{'process':12} {'messages':>9} {'MiB':>7} {'descriptors':>12} {'threads':>8}")
    for name, samples in observer.samples.items():
        for each in samples[:: max(1, len(samples) // 10)] + samples[-1:]:
            size = each.memory / (1 << 20)
            print(f"{name:12} {each.messages:9,} {size:7.1f} {each.descriptors:12} {each.threads:8}")
        grown = trend(samples)
        print(f"{name:12} {grown.kib:.2f} KiB for 1,000 messages, {grown.mib:.2f} MiB in all", flush=True)
    print(f"broker: {before['MiB']} MiB -> {after['MiB']} MiB, queues {after['queues']}", flush=True)


def _record(observer: Observer, messages: int, seed: int) -> None:
    if os.environ.get("MIXED_WRITE"):
        processes = {}
        for name, kept in observer.in_use().items():
            processes[name] = {
                "resident": [round(each.memory / (1 << 20), 1) for each in ends(observer.samples[name])],
                "blocks": [each["blocks"] for each in kept],
                "used": [round(each["used"] / (1 << 20), 2) for each in kept],
            }
        figures.note("mixed", {"messages": messages, "seed": seed, "processes": processes})


if __name__ == "__main__":
    main(
        int(os.environ.get("MIXED_MESSAGES", "300000")),
        int(os.environ.get("MIXED_SEED") or random.SystemRandom().randrange(10**6)),
    )
