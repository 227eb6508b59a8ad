"""Translates errors of the broker, of OpenSSL and of sockets into ours, which say what to do (pure)."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from ..errors import (
    AccessRefused,
    ConnectionLost,
    MaybeRejected,
    MessageRejected,
    MessageTooLarge,
    NotConnected,
    TopologyMismatch,
    TransportError,
)
from .base import Plan
from .url import BrokerURL

# AMQP 0-9-1, section 1.2.
_ACCESS_REFUSED, _NOT_FOUND, _RESOURCE_LOCKED, _PRECONDITION_FAILED, _NOT_ALLOWED = 403, 404, 405, 406, 530
# The same, for connections: it does not understand what was sent, or a part of it failed because of that.
_UNINTELLIGIBLE = range(501, 506), (540, 541)
# Section 1.3: the classes of methods that declare and bind, and the method that publishes.
_EXCHANGE, _QUEUE = 40, 50
_PUBLISH = (60, 40)
# What OpenSSL says, and what to check; the first match counts.
_HINTS = (
    ("WRONG_VERSION_NUMBER", "does this port speak TLS? amqp:// is without"),
    ("certificate required", "the broker wants a certificate of this client: certfile and keyfile"),
    ("alert handshake failure", "does the broker want a certificate of this client? certfile and keyfile"),
    (
        "alert (unknown ca|bad certificate|certificate (expired|revoked|unknown)|unsupported certificate)",
        "the broker does not accept the certificate of this client",
    ),
    ("(Hostname|IP address) mismatch", "its certificate is for another host"),
    ("certificate has expired", "its certificate has to be renewed"),
    ("CERTIFICATE_VERIFY_FAILED", "name the authority of its certificate with ca_certs, or cacertfile in the URL"),
    # In TLS 1.3 the broker checks it after this side has finished, and may close before its alert is read.
    ("EOF occurred|reset|closed|Broken pipe", "does the broker want, and accept, a certificate of this client?"),
)
# What a client sees that speaks AMQP to a port that wants TLS: its end, or an alert, which reads like a large frame.
_NO_AMQP = re.compile("Connection reset|closed connection|Broken pipe|a frame of")
# What ends an attempt for good, unless the broker has agreed before: another would fail, too.
REFUSALS = (AccessRefused, TopologyMismatch)
# What RabbitMQ 3.10 to 4.3 refuse because of a limit: the reply code, how the text begins, and which limit it is. Names
# in the text may contain anything, so it is matched from its beginning.
_OF_USER, _OF_VHOST = "of the user (rabbitmqctl set_user_limits)", "of the virtual host (rabbitmqctl set_vhost_limits)"
_IN_FILE = "(rabbitmq.conf)"
_LIMITS = (
    (_NOT_ALLOWED, "connection refused for user ", f"max-connections {_OF_USER}"),
    (_NOT_ALLOWED, "access to vhost '.*' refused for user '.*': connection limit ", f"max-connections {_OF_VHOST}"),
    (_NOT_ALLOWED, "connection refused: node connection limit ", f"connection_max {_IN_FILE}"),
    (_NOT_ALLOWED, "number of channels opened for user ", f"max-channels {_OF_USER}"),
    (_NOT_ALLOWED, "number of channels opened on node ", f"channel_max_per_node {_IN_FILE}"),
    (_NOT_ALLOWED, r"number of channels opened \(", f"channel_max {_IN_FILE}"),
    (_NOT_ALLOWED, r"reached maximum \(\d+\) of consumers ", f"consumer_max_per_channel {_IN_FILE}"),
    (_PRECONDITION_FAILED, "cannot declare queue '.*': queue limit in vhost ", f"max-queues {_OF_VHOST}"),
    (_PRECONDITION_FAILED, "cannot declare queue '.*': queue limit in cluster ", f"cluster_queue_limit {_IN_FILE}"),
    (_PRECONDITION_FAILED, "cannot declare exchange '.*: exchange limit ", f"cluster_exchange_limit {_IN_FILE}"),
)
# What else is refused only until something is up: the process of a queue, its node, the database, a service that the
# broker asks about users.
_UNAVAILABLE = (
    (_NOT_FOUND, "home node .* is down or inaccessible"),
    (_NOT_FOUND, "queue '.*' (process is stopped by supervisor|has crashed and failed to restart)"),
    (_NOT_FOUND, "failed to perform operation on queue '.*' due to timeout"),
    (_NOT_FOUND, "failed to perform operation on queue '.*: its .* may be stopping"),
    (_NOT_ALLOWED, "access to vhost '.*' refused for user '.*': connection limit cannot be queried"),
    (_NOT_ALLOWED, "access to .* refused for user '.*', backend .* returned an error"),
    (_ACCESS_REFUSED, ".*access to .* refused for user '.*', backend .* returned an error"),
)
# In front of the text, the name of its code: "NOT_ALLOWED - ".
_CODE_NAME = re.compile("[A-Z_]+ - ")
# How the broker says that what is declared exists with other arguments.
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>queue|exchange) '(?P<name>.*)' in vhost '.*': "
    r"received (?P<asked>.+) but current is (?P<current>.+)"
)
_OF_TYPE = re.compile(r"^the value '?(.*?)'? of type '\w+'$")


def describe(exc: Exception, url: BrokerURL, plan: Plan | None = None) -> TransportError:
    """Translate an error of connecting, of setting up (by the plan), or of a channel that the broker closed."""
    code = getattr(exc, "reply_code", 0)  # of py-amqp's errors
    false_user = code == _PRECONDITION_FAILED and "user_id property" in str(exc)
    if passing := _passing(code, say(exc)):
        return NotConnected(f"the broker at {url.where} refused, for now: {passing}")
    if false_user or code in (_ACCESS_REFUSED, _NOT_ALLOWED):
        return AccessRefused(
            f"the broker at {url.where} refused {_who(url)} on virtual host {url.vhost!r}: {say(exc)}. "
            f"Check user, password, virtual host and permissions{_without_declaring(exc, plan)}"
        )
    if code == _PRECONDITION_FAILED and "message size" in str(exc):
        return MessageTooLarge(f"the broker at {url.where} refused the message: {say(exc)}. It did not run")
    if code == _PRECONDITION_FAILED and _is_publish(exc) and "fast reply consumer" not in str(exc):
        return MessageRejected(f"the broker at {url.where} refused the message: {say(exc)}. It did not run")
    if code in (_NOT_FOUND, _PRECONDITION_FAILED):
        return TopologyMismatch(
            f"the broker at {url.where} refused what was asked of an exchange or queue: {_topology(exc)}"
        )
    if code == _RESOURCE_LOCKED:
        # It ends with that connection, so other attempts follow.
        return NotConnected(
            f"the broker at {url.where} refused the use of a queue that is exclusive to another connection: {say(exc)}"
        )
    if url.tls and getattr(exc, "errno", None) in (errno.EINVAL, errno.ENOTCONN):
        # Python's ssl asks for the address of a peer that has reset the connection.
        exc = ConnectionResetError("the connection was closed during the TLS handshake")
    return NotConnected(f"no connection to the broker at {url.where}: {say(exc)}{_hint(exc, url)}")


def closed(exc: Exception, url: BrokerURL) -> ConnectionLost:
    """Translate an error that ended a connection; ``MaybeRejected`` if the broker ended it because of what was sent."""
    is_because_of_us = any(getattr(exc, "reply_code", 0) in codes for codes in _UNINTELLIGIBLE)
    kind = MaybeRejected if is_because_of_us else ConnectionLost
    return kind(f"the connection to the broker at {url.where} ended: {say(exc)}")


def summary(failures: Sequence[TransportError]) -> TransportError:
    """
    Return one error of several brokers, the newest failure first.

    It is a refusal only if each of them is, since one of the others may come to take the connection.
    """
    first, *others = failures
    if not others:
        return first
    kind = type(first) if all(isinstance(each, REFUSALS) for each in failures) else NotConnected
    return kind("; ".join(map(str, failures)))


def _passing(code: int, text: str) -> str | None:
    """Return what was refused only for now."""
    explanation = _CODE_NAME.sub("", text, count=1)
    if any(code == each and re.match(begin, explanation, re.DOTALL) for each, begin in _UNAVAILABLE):
        return text
    for each, begin, limit in _LIMITS:
        if code == each and re.match(begin, explanation, re.DOTALL):
            return f"a limit is reached, {limit}: {text}"
    return None


def _is_publish(exc: Exception) -> bool:
    return tuple(getattr(exc, "method_sig", None) or ()) == _PUBLISH


def _who(url: BrokerURL) -> str:
    if url.is_external:
        return "the user of this client's certificate"
    return f"user {url.user!r}"


def _without_declaring(exc: Exception, plan: Plan | None) -> str:
    """Return how to do without the refused operation, where that is possible."""
    class_id, _method_id = getattr(exc, "method_sig", None) or (0, 0)
    # A client declares its reply queue in any case.
    declared = (_EXCHANGE,) if plan is None or plan.queue is None else (_EXCHANGE, _QUEUE)
    if plan is None or not plan.declare or class_id not in declared:
        return ""
    return "; or declare nothing, where another program has: declare=False (--no-declare)"


def _hint(exc: Exception, url: BrokerURL) -> str:
    text = str(exc)
    if url.tls:
        return next((f"; {hint}" for sign, hint in _HINTS if re.search(sign, text)), "")
    if isinstance(exc, OSError) and _NO_AMQP.search(text):
        return "; does this port want TLS? amqps:// is with"
    return ""


def _topology(exc: Exception) -> str:
    """Return what differs, or is missing, and what to do."""
    text = say(exc)
    differs = _INEQUIVALENT.search(text)
    if differs:
        argument, kind, name = differs.group("argument", "kind", "name")
        asked, current = (_OF_TYPE.sub(r"'\1'", differs[each]) for each in ("asked", "current"))
        return (
            f"{kind} '{name}' exists with {argument} {current}, and {argument} {asked} was asked for. Ask for what is "
            "there, use declare=False, or delete it"
        )
    if "NOT_FOUND" in text:
        return f"{text}. Start a server that declares it, or have it made by an administrator"
    return f"{text}. Ask for what is there, or delete it"


def say(exc: Exception) -> str:
    """Return the text of an error as a part of a sentence."""
    text = getattr(exc, "reply_text", None) or str(exc) or type(exc).__name__
    return str(text).rstrip(".")
