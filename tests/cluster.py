"""A private RabbitMQ cluster, each node of which a test may kill, freeze and restart."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .broker import Broker, BrokerError, free_ports, start_epmd

# An election takes about a second after a crash, and longer after a freeze, which is detected later.
PATIENCE = 150.0
# A command takes half a second, or hangs because it asks a node that was frozen.
CTL_TIMEOUT = 30.0

# list_queues asks the leader itself, and waits a minute for a frozen one.
LEADER = """
    {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
    {Name, _} = amqqueue:get_pid(Queue),
    case ra_leaderboard:lookup_leader(Name) of {_, Node} -> Node; undefined -> none end.
"""

T = TypeVar("T")


class Cluster:
    """
    RabbitMQ nodes of their own, joined, each with its ports and its data.

    Quorum queues work while a majority runs. A node that was killed comes back with ``restart``, which waits for
    another; after a crash of all, restart them at the same time. Freeze a node for less than a minute: after that, the
    others treat it as dead, and it cannot rejoin when it thaws.

    Args:
        size: How many nodes.
        options: As ``Broker`` takes them, for each node.

    Attributes:
        nodes: The nodes, once it is started.
    """

    def __init__(self, size: int = 3, **options: Any) -> None:
        self.size = size
        self.options = options
        self.nodes: list[Broker] = []
        self._epmd: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URLs of all nodes, separated by semicolons, as clients and servers take them."""
        return ";".join(node.url for node in self.nodes)

    def start(self) -> None:
        """
        Boot the nodes and join them.

        Raises:
            BrokerError: A node did not come up, or did not join.
        """
        [epmd_port] = free_ports(1)
        cookie = secrets.token_hex(16)
        self._epmd = start_epmd(epmd_port)
        self.nodes = [Broker(cookie=cookie, epmd_port=epmd_port, **self.options) for _ in range(self.size)]
        try:
            _each(Broker.start, self.nodes)
            for node in self.nodes[1:]:
                node.ctl("stop_app")
                node.ctl("join_cluster", self.nodes[0].name)
                node.ctl("start_app")
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the nodes, and remove their data."""
        try:
            _each(Broker.stop, self.nodes)
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait()
                self._epmd = None

    def leader_of(self, queue: str) -> Broker:
        """
        Return the node that leads a quorum queue of the virtual host ``/``; wait for an election if there is none.

        Raises:
            BrokerError: There is no such queue, or no leader in time.
        """
        return _wait_for(lambda: self._elected(queue), f"{queue} has no leader")

    def wait_until_whole(self) -> None:
        """
        Wait until every node sees that all run, and all members of every quorum queue are online.

        Raises:
            BrokerError: It took too long.
        """
        _wait_for(self._is_whole, "the cluster is not whole")

    def _elected(self, queue: str) -> Broker | None:
        # A majority decides: nodes may still name a dead leader, and a restarted one may name itself.
        awake = [node for node in self.nodes if node.awake]
        named = _each(lambda node: node.ctl("eval", LEADER % queue, timeout=CTL_TIMEOUT).strip(), awake)
        return next((node for node in awake if named.count(node.name) > self.size // 2), None)

    def _is_whole(self) -> bool:
        if not all(node.awake for node in self.nodes):
            return False
        queues = self.nodes[0].list("queues", "type", "members", "online", timeout=CTL_TIMEOUT)
        # RabbitMQ 4 lists members for other types too, but none as online.
        if any(set(queue["members"]) != set(queue["online"]) for queue in queues if "quorum" in queue["type"]):
            return False
        everybody = {node.name for node in self.nodes}
        return all(running == everybody for running in _each(_running_nodes, self.nodes))


def _running_nodes(node: Broker) -> set[str]:
    status = json.loads(node.ctl("cluster_status", "--formatter", "json", timeout=CTL_TIMEOUT))
    return set(status["running_nodes"])


def _each(action: Callable[[Broker], T], nodes: Sequence[Broker]) -> list[T]:
    """Run an action on all nodes at the same time."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(action, nodes))


def _wait_for(ask: Callable[[], T | None], otherwise: str) -> T:
    """Call ``ask`` until its result is true. Errors count as "not yet"."""
    give_up = time.monotonic() + PATIENCE
    while True:
        error: Exception | None = None
        try:
            if answer := ask():
                return answer
        except (BrokerError, subprocess.TimeoutExpired) as exc:
            error = exc
        if time.monotonic() > give_up:
            raise BrokerError(f"{otherwise} after {PATIENCE:.0f} s") from error
