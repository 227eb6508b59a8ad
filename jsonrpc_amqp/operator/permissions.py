"""
The least permissions that the users of a service need on RabbitMQ, as commands of ``rabbitmqctl`` (pure).

Permissions are regular expressions, so names are escaped. RabbitMQ's variable ``{username}`` is not used: RabbitMQ
inserts the name unescaped (user ``a.b`` would match ``axb``), and not percent-encoded as in routing keys.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Literal

from ..wire.display import printable
from ..wire.names import DEFAULT_EXCHANGE, TOKEN_LENGTH, check_service, request_queue, user_word

Reply = Literal["topic", "direct"]

_NOTHING = "^$"
_TOKEN = f"[a-z0-9]{{{TOKEN_LENGTH}}}"
# RabbitMQ's name for the default exchange, and the names that it generates for queues.
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
    Return shell commands that let one user serve a service and another user call it, and no more.

    The first declares the exchange, since RabbitMQ 4.3 refuses topic permissions for one that does not exist. Queue and
    binding must exist before the users need them, and both ends must have ``declare=False``.

    Args:
        service: The service's name.
        server_user, client_user: Names of AMQP users; for certificates, the name that RabbitMQ derives from them, such
            as the distinguished name.
        reply: How the client gets its replies: over the exchange, or by direct reply-to.
        vhost: The virtual host.
        exchange: The topic exchange.
        queue: The request queue; ``<service>_req`` where not given.

    Raises:
        InvalidName: A name cannot be part of a routing key.
        ValueError: A name is empty, or contains a character that cannot be printed (a line break, an escape), or both
            users are the same, whose permissions would be set twice.
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
        _declaration(vhost, exchange),
        *_commands(vhost, server_user, exchange, *_of_server(service, exchange, queue, reply)),
        *_commands(vhost, client_user, exchange, *_of_client(service, exchange, client_user, reply)),
    ]


_Patterns = tuple[tuple[str, str, str], tuple[str, str]]
"""Patterns for configure, write and read; and for the routing keys of the exchange: write and read."""


def _of_server(service: str, exchange: str, queue: str, reply: Reply) -> _Patterns:
    # A reply to a reply_to goes through the default exchange, which reaches every queue.
    writes = (re.escape(exchange),) if reply == "topic" else (re.escape(exchange), _DEFAULT_EXCHANGE)
    topics = (f"^{re.escape(service)}\\.response\\..+$" if reply == "topic" else _NOTHING, _NOTHING)
    return (_NOTHING, _either(*writes), _either(re.escape(queue))), topics


def _of_client(service: str, exchange: str, user: str, reply: Reply) -> _Patterns:
    name, client = re.escape(service), re.escape(user_word(user))
    requests = f"^{name}\\.request\\.{client}-{_TOKEN}(\\..+)?$"
    if reply == "direct":
        return (_NOTHING, _either(re.escape(exchange)), _NOTHING), (requests, _NOTHING)
    # Binding a queue takes write permission on it and read permission on the exchange; consuming it takes read.
    both = _either(re.escape(exchange), _OWN_QUEUES)
    return (_either(_OWN_QUEUES), both, both), (requests, f"^{name}\\.response\\.{client}-{_TOKEN}\\.#$")


def _declaration(vhost: str, exchange: str) -> str:
    # https://www.rabbitmq.com/docs/definitions: what exists already is left as it is.
    described = {"name": exchange, "vhost": vhost, "type": "topic", "durable": True}
    described |= {"auto_delete": False, "internal": False, "arguments": {}}
    definitions = json.dumps({"exchanges": [described]}, ensure_ascii=False)
    return f"printf %s {shlex.quote(definitions)} | rabbitmqctl import_definitions"


def _either(*patterns: str) -> str:
    return f"^{patterns[0]}$" if len(patterns) == 1 else f"^({'|'.join(patterns)})$"


def _commands(
    vhost: str, user: str, exchange: str, resources: tuple[str, str, str], topics: tuple[str, str]
) -> Iterator[str]:
    for command, arguments in (("set_permissions", resources), ("set_topic_permissions", (exchange, *topics))):
        words = ["rabbitmqctl", command, "-p", vhost, "--", user, *arguments]
        # rabbitmqctl reads its standard input, and would swallow the commands that follow in a pasted or piped script.
        yield f"{shlex.join(words)} </dev/null"
