"""
The least that the users of a service need on RabbitMQ, as lines of ``rabbitmqctl`` (pure).

Permissions are regular expressions, so names are written out and escaped. ``{username}`` is of no use: RabbitMQ puts
the name into the expression as it is (user ``a.b`` would match ``axb``), and it matches no name that keys have encoded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Literal

from ..wire.display import printable
from ..wire.names import DEFAULT_EXCHANGE, TOKEN_LENGTH, check_service, request_queue, user_word

Reply = Literal["topic", "direct"]

_NOTHING = "^$"
_TOKEN = f"[a-z0-9]{{{TOKEN_LENGTH}}}"
# What RabbitMQ calls the default exchange, and the queues that it names itself.
_DEFAULT_EXCHANGE, _OWN_QUEUES = r"amq\.default", r"amq\.gen-.+"


def permissions(
    service: str,
    *,
    server_user: str,
    client_user: str,
    reply: Reply = "topic",
    vhost: str = "/",
    exchange: str = DEFAULT_EXCHANGE,
    queue: str | None = None,
) -> list[str]:
    """
    Give the commands, each for a shell, that let one user serve a service and another call it, and no more.

    Exchange, queue and binding must be there, made by somebody else, and both ends have ``declare=False``.

    Args:
        service: Its name.
        server_user, client_user: Names of AMQP users; of certificates what RabbitMQ makes of them, such as the
            distinguished name.
        reply: How the client has its answers: over the exchange, or by direct reply-to.
        vhost: The virtual host.
        exchange: The topic exchange.
        queue: The request queue; ``<service>_req`` where not given.

    Raises:
        InvalidName: A name that can stand in no routing key.
        ValueError: A name is empty, or has something in it that is no letter (a line break, an escape), or the two
            users are one, whose permissions would be set twice.
    """
    check_service(service)
    queue = request_queue(service) if queue is None else queue
    names = {"server user": server_user, "client user": client_user, "virtual host": vhost, "exchange": exchange}
    for what, name in {**names, "queue": queue}.items():
        if not name:
            raise ValueError(f"the {what} has no name")
        if not name.isprintable():
            raise ValueError(f"the name {printable(name)} has something in it that cannot be printed")
    if server_user == client_user:
        raise ValueError(f"server and client are both {server_user!r}: users that are one cannot be kept apart")
    return [
        *_commands(vhost, server_user, exchange, *_of_server(service, exchange, queue, reply)),
        *_commands(vhost, client_user, exchange, *_of_client(service, exchange, client_user, reply)),
    ]


_Patterns = tuple[tuple[str, str, str], tuple[str, str]]
"""Configure, write and read; write and read of the exchange's routing keys."""


def _of_server(service: str, exchange: str, queue: str, reply: Reply) -> _Patterns:
    # A reply_to is answered through the default exchange, by which every queue can be reached.
    writes = (re.escape(exchange),) if reply == "topic" else (re.escape(exchange), _DEFAULT_EXCHANGE)
    topics = (f"^{re.escape(service)}\\.response\\..+$" if reply == "topic" else _NOTHING, _NOTHING)
    return (_NOTHING, _either(*writes), _either(re.escape(queue))), topics


def _of_client(service: str, exchange: str, user: str, reply: Reply) -> _Patterns:
    name, client = re.escape(service), re.escape(user_word(user))
    asks = f"^{name}\\.request\\.{client}-{_TOKEN}(\\..+)?$"
    if reply == "direct":
        return (_NOTHING, _either(re.escape(exchange)), _NOTHING), (asks, _NOTHING)
    # To bind a queue is to write to it, and to read the exchange; to consume it is to read it.
    both = _either(re.escape(exchange), _OWN_QUEUES)
    return (_either(_OWN_QUEUES), both, both), (asks, f"^{name}\\.response\\.{client}-{_TOKEN}\\.#$")


def _either(*patterns: str) -> str:
    return f"^{patterns[0]}$" if len(patterns) == 1 else f"^({'|'.join(patterns)})$"


def _commands(
    vhost: str, user: str, exchange: str, resources: tuple[str, str, str], topics: tuple[str, str]
) -> Iterator[str]:
    for command, arguments in (("set_permissions", resources), ("set_topic_permissions", (exchange, *topics))):
        words = ["rabbitmqctl", command, "-p", vhost, "--", user, *arguments]
        # It reads what it is given: the lines that follow, where they are piped to a shell or pasted into one.
        yield f"{shlex.join(words)} </dev/null"
