"""Every default of clients and servers, once, with its reason, and the options of a connection (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# -- connections: seconds -----------------------------------------------------------------------------------

# A dead peer is noticed within two intervals: well before a call's default timeout, so that its caller learns of a
# lost connection, and long enough to survive a pause of the machine. It costs 8 bytes every 5 seconds.
HEARTBEAT = 10.0
# For one attempt: the name's lookup, TCP, TLS, login and all declarations.
CONNECT_TIMEOUT = 5.0
# The longest timeout of a socket: 31 bits of milliseconds.
MAX_CONNECT_TIMEOUT = 0x7FFFFFFF / 1000

# -- messages: bytes ----------------------------------------------------------------------------------------

# The largest message that RabbitMQ takes by default since 4.0.
MAX_SIZE = 16 << 20
# Larger batches are nearly always a mistake; each member costs the server a dispatch.
MAX_BATCH = 1000
# JSON-RPC needs three levels. Python's own recursion limit is far above this.
MAX_DEPTH = 100
# Bytes of a method's name. Names are matched with patterns, logged, and looked up; those that people write are shorter.
MAX_METHOD = 256

# -- clients ------------------------------------------------------------------------------------------------

# Seconds. Long enough for a method that works, short enough that a mistake is noticed by the one who made it.
TIMEOUT = 30.0
# A pending call takes about a kilobyte and its body: enough for any intended load, and a bound for an unintended one.
MAX_PENDING = 100_000

# Threads of a client for what ``submit`` begins with middleware. Each waits for its call: as many as a server of ours
# handles at a time. A program that needs hundreds has an ``AsyncClient``, whose calls need none.
MIDDLEWARE_THREADS = 8

# -- servers ------------------------------------------------------------------------------------------------

# Handlers that run at a time.
CONCURRENCY = 8
# Coroutines of one process: each costs some KiB.
ASYNC_CONCURRENCY = 100
# Enough to keep the handlers busy during the broker's round trip, few enough that a slow process does not hold requests
# that another could serve. A server takes at least twice ``concurrency``.
PREFETCH = 64
# RabbitMQ 4's own default for quorum queues. Half of the requests that are redelivered together with one that kills its
# server get through each time: after twenty deliveries, all of them.
DELIVERY_LIMIT = 20
# Seconds that running handlers get to finish in.
GRACE = 30.0
# Seconds that ``Server.start`` waits for the broker.
START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """
    How to connect one client or server, and keep it connected.

    Attributes:
        name: Shown by RabbitMQ's management, and in logs.
        heartbeat: Seconds between heartbeats that are offered to the broker; 0 turns them off.
        connect_timeout: Seconds for one attempt to connect and set up, which all addresses of a host share.
        reconnect: False makes a lost connection, or one failed attempt for each broker, final until ``start`` is called
            again.
        max_size: Bodies over this many bytes are dropped as they arrive.
        tls: Options of py-amqp's TLS: ``ca_certs``, ``certfile``, ``keyfile``, ``server_hostname``, ...

    Raises:
        ValueError: The heartbeat is neither 0 nor from 1 to 65,535 seconds, or the timeout is not above 0, or over 24
            days.
    """

    name: str = "jsonrpc-amqp"
    heartbeat: float = HEARTBEAT
    connect_timeout: float = CONNECT_TIMEOUT
    reconnect: bool = True
    max_size: int = MAX_SIZE
    tls: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # 16 bits in AMQP.
        if self.heartbeat != 0 and not 1 <= self.heartbeat <= 0xFFFF:
            raise ValueError(f"a heartbeat is 0 (none) or at least 1 second, at most 65535, not {self.heartbeat!r}")
        if not 0 < self.connect_timeout <= MAX_CONNECT_TIMEOUT:
            raise ValueError(
                f"connect_timeout is a number of seconds above 0, at most {MAX_CONNECT_TIMEOUT:.0f}, not "
                f"{self.connect_timeout!r}"
            )
