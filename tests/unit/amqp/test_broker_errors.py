"""Errors of the broker, of OpenSSL and of sockets become ours. The texts are RabbitMQ's, 3.10 if nothing is said."""

from __future__ import annotations

import errno
import os
import ssl

import amqp
import pytest

from jsonrpc_amqp.amqp.base import Plan
from jsonrpc_amqp.amqp.broker_errors import closed, describe, summary
from jsonrpc_amqp.amqp.url import parse_urls
from jsonrpc_amqp.errors import (
    AccessRefused,
    ConnectionLost,
    MaybeRejected,
    MessageRejected,
    MessageTooLarge,
    NotConnected,
    TopologyMismatch,
    TransportError,
)

[PLAIN] = parse_urls("amqp://alice:secret@broker/orders")
[TLS] = parse_urls("amqps://alice:secret@broker/orders")
[EXTERNAL] = parse_urls("amqps://broker/orders?auth_mechanism=external&certfile=c&keyfile=k")
QUEUE_DECLARE, EXCHANGE_DECLARE, BASIC_PUBLISH = (50, 10), (40, 10), (60, 40)
DECLARES = Plan(exchange="jsonrpc", queue="S_req")


def said(error: Exception, *, kind: type[TransportError]) -> str:
    described = describe(error, PLAIN, DECLARES)
    assert type(described) is kind
    assert "secret" not in str(described)
    return str(described)


@pytest.mark.parametrize(
    ("error", "kind", "texts"),
    [
        (
            amqp.NotFound("NOT_FOUND - no queue 'S_req' in vhost '/'", QUEUE_DECLARE),
            TopologyMismatch,
            ["no queue 'S_req'", "Start a server that declares it"],
        ),
        (
            amqp.NotFound("NOT_FOUND - home node 'a@b' of durable queue 'q' is down or inaccessible", QUEUE_DECLARE),
            NotConnected,
            ["home node 'a@b'"],
        ),
        (
            amqp.ResourceLocked("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'", QUEUE_DECLARE),
            NotConnected,
            ["exclusive to another connection", "locked queue 'q'"],
        ),
        (
            amqp.PreconditionFailed(
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'S_req' in vhost '/': received 'true' but "
                "current is 'false'",
                QUEUE_DECLARE,
            ),
            TopologyMismatch,
            ["queue 'S_req' exists with durable 'false', and durable 'true' was asked for", "declare=False"],
        ),
        (
            amqp.PreconditionFailed(
                "PRECONDITION_FAILED - message size 9 is larger than configured max size 8", BASIC_PUBLISH
            ),
            MessageTooLarge,
            ["message size 9", "It did not run"],
        ),
        (
            amqp.PreconditionFailed(
                "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'alice'", BASIC_PUBLISH
            ),
            AccessRefused,
            ["refused user 'alice' on virtual host 'orders'", "authenticated user was 'alice'"],
        ),
        (
            amqp.PreconditionFailed(
                'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}', BASIC_PUBLISH
            ),
            MessageRejected,
            ["unacceptable_type_in_header", "It did not run"],
        ),
        (
            amqp.PreconditionFailed("PRECONDITION_FAILED - fast reply consumer does not exist", BASIC_PUBLISH),
            TopologyMismatch,
            ["fast reply consumer"],
        ),
        (
            amqp.AccessRefused("ACCESS_REFUSED - access to exchange 'jsonrpc' refused", EXCHANGE_DECLARE),
            AccessRefused,
            ["Check user, password, virtual host and permissions", "declare=False"],
        ),
        (
            amqp.NotAllowed("NOT_ALLOWED - access to vhost 'orders' refused for user 'alice'"),
            AccessRefused,
            ["user 'alice' on virtual host 'orders'"],
        ),
        (ConnectionRefusedError(111, "Connection refused"), NotConnected, ["broker:5672", "Connection refused"]),
        (ConnectionResetError(104, "Connection reset by peer"), NotConnected, ["does this port want TLS?"]),
        (ConnectionError("a frame of 131594 bytes, more than 131072"), NotConnected, ["does this port want TLS?"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_of_the_broker(error: Exception, kind: type[TransportError], texts: list[str]) -> None:
    text = said(error, kind=kind)
    assert [each for each in [*texts, "broker:5672"] if each not in text] == []


# What each limit is called, and what RabbitMQ says when it is reached: all that its versions 3.10 to 4.3 have.
LIMITS = [
    ("max-connections of the user", 530, "connection refused for user 'alice': user connection limit (5) is reached"),
    ("max-channels of the user", 530, "number of channels opened for user 'alice' has reached the maximum allowed user "
     "limit of (3)"),
    # 4.3.2
    ("max-channels of the user", 530, "number of channels opened for user 'alice' has reached the maximum allowed user "
     "limit of 3"),
    ("max-connections of the virtual host", 530, "access to vhost 'orders' refused for user 'alice': connection limit "
     "(0) is reached"),
    ("max-queues of the virtual host", 406, "cannot declare queue 'S_req': queue limit in vhost 'orders' (1) is "
     "reached"),
    # 3.13
    ("channel_max_per_node", 530, "number of channels opened on node 'rabbit@a' has reached the maximum allowed limit "
     "of (9)"),
    # 3.12
    ("connection_max", 530, "connection refused: node connection limit (2) is reached"),
    ("cluster_queue_limit", 406, "cannot declare queue 'S_req': queue limit in cluster (1) is reached"),
    # 4.2
    ("cluster_exchange_limit", 406, "cannot declare exchange 'jsonrpc' in vhost 'orders': exchange limit of 7 is "
     "reached"),
    ("channel_max", 530, "number of channels opened (3) has reached the negotiated channel_max (3)"),
    # 4.0
    ("consumer_max_per_channel", 530, "reached maximum (0) of consumers per channel"),
]  # fmt: skip
UNAVAILABLE = [
    (404, "home node 'rabbit@a' of durable queue 'S_req' in vhost 'orders' is down or inaccessible"),
    (404, "queue 'S_req' in vhost 'orders' process is stopped by supervisor"),
    (404, "queue 'S_req' in vhost 'orders' has crashed and failed to restart"),
    (404, "failed to perform operation on queue 'S_req' in vhost 'orders' due to timeout"),
    (404, "failed to perform operation on queue 'S_req' in vhost 'orders': its master replica <1.2.3> may be stopping "
     "or being demoted"),
    (404, "failed to perform operation on queue 'S_req' in vhost 'orders': its leader <1.2.3> may be stopping or being "
     "demoted"),
    (530, "access to vhost 'orders' refused for user 'alice': connection limit cannot be queried, timeout"),
    (530, "access to vhost 'orders' refused for user 'alice', backend rabbit_auth_backend_http returned an error: "
     "econnrefused"),
    (403, "configure access to queue 'S_req' in vhost 'orders' refused for user 'alice', backend "
     "rabbit_auth_backend_ldap returned an error: timeout"),
    (403, "access to queue 'S_req' in vhost 'orders' refused for user 'alice', backend rabbit_auth_backend_ldap "
     "returned an error: timeout"),
    (506, "Stream coordinator unavailable for queue 'S_req' in vhost 'orders'"),
    (541, "access to vhost 'orders' refused for user 'alice': vhost 'orders' is down"),
    (541, "Cannot declare quorum queue 'S_req' in vhost 'orders' on node 'a' because the metadata store operation "
     "timed out"),
]  # fmt: skip
NAMES = {403: "ACCESS_REFUSED", 404: "NOT_FOUND", 406: "PRECONDITION_FAILED", 506: "RESOURCE_ERROR",
         530: "NOT_ALLOWED", 541: "INTERNAL_ERROR"}  # fmt: skip


def closed_with(code: int, text: str) -> Exception:
    """Return py-amqp's error for a close of the broker's."""
    error = amqp.exceptions.error_for_code(code, f"{NAMES[code]} - {text}", QUEUE_DECLARE, amqp.ConnectionError)
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(("limit", "code", "text"), LIMITS)
def test_a_limit_that_is_reached_may_pass_and_is_named(limit: str, code: int, text: str) -> None:
    described = said(closed_with(code, text), kind=NotConnected)
    assert f"a limit is reached, {limit} (" in described
    assert text in described
    assert not any(advice in described for advice in ("Check user", "delete it"))


@pytest.mark.parametrize(("code", "text"), UNAVAILABLE)
def test_what_is_not_up_may_come_back(code: int, text: str) -> None:
    described = said(closed_with(code, text), kind=NotConnected)
    assert text in described
    assert "a limit" not in described


@pytest.mark.parametrize(
    "name",
    [
        "connection limit (1) is reached",
        "number of channels opened for user ",
        "queue limit in vhost / (1) is reached",
        "exchange limit of 7 is reached",
        "is down or inaccessible",
        "backend x returned an error: y",
        "has crashed and failed to restart",
    ],
)
def test_a_name_that_reads_like_a_limit_is_none(name: str) -> None:
    for code, text, kind in (
        (530, f"access to vhost '{name}' refused for user 'alice'", AccessRefused),
        (530, f"vhost {name} not found", AccessRefused),
        (403, f"access to queue '{name}' in vhost '/' refused for user 'alice'", AccessRefused),
        (404, f"no queue '{name}' in vhost '/'", TopologyMismatch),
        (406, f"inequivalent arg 'durable' for queue '{name}' in vhost '/': received 'true' but current is 'false'",
         TopologyMismatch),
    ):  # fmt: skip
        said(closed_with(code, text), kind=kind)


def test_several_brokers_have_refused_only_if_each_has() -> None:
    refused, mismatch, down = AccessRefused("no user"), TopologyMismatch("no queue"), NotConnected("down")
    assert summary([refused]) is refused
    for failures, kind, text in (
        ([mismatch, refused], TopologyMismatch, "no queue; no user"),
        ([refused, down], NotConnected, "no user; down"),
        ([down, refused], NotConnected, "down; no user"),
    ):
        error = summary(failures)
        assert (type(error), str(error)) == (kind, text)


def test_only_a_refused_declaration_can_be_done_without() -> None:
    refused = amqp.AccessRefused("ACCESS_REFUSED - access to queue 'S_req' refused", QUEUE_DECLARE)
    assert "declare=False" in str(describe(refused, PLAIN, DECLARES))
    for plan in (None, Plan(exchange="jsonrpc", queue="S_req", declare=False), Plan(exchange="jsonrpc")):
        assert "declare=False" not in str(describe(refused, PLAIN, plan))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does this port speak TLS?"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch", "another host"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", "renewed"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "ca_certs"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "certfile and keyfile"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "does not accept the certificate"),
    ],
)
def test_error_of_tls_says_what_to_check(text: str, hint: str) -> None:
    error = describe(ssl.SSLError(1, text), TLS)
    assert type(error) is NotConnected
    assert hint in str(error)
    assert hint not in str(describe(ssl.SSLError(1, text), PLAIN))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTCONN])
def test_a_peer_that_is_gone_before_tls_is_named(number: int) -> None:
    """Python's ssl raises these where the peer has reset the connection."""
    error = describe(OSError(number, os.strerror(number)), TLS)
    assert type(error) is NotConnected
    assert "closed during the TLS handshake" in str(error)
    assert "Errno" not in str(error)
    assert "Errno" in str(describe(OSError(number, os.strerror(number)), PLAIN))


def test_user_of_a_certificate_has_no_name_here() -> None:
    assert "the user of this client's certificate" in str(describe(amqp.AccessRefused("ACCESS_REFUSED"), EXTERNAL))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (amqp.InternalError("INTERNAL_ERROR"), MaybeRejected),
        (amqp.exceptions.FrameSyntaxError("SYNTAX_ERROR"), MaybeRejected),
        (amqp.exceptions.error_for_code(501, "FRAME_ERROR", (0, 0), amqp.ConnectionError), MaybeRejected),
        (amqp.UnexpectedFrame("UNEXPECTED_FRAME"), MaybeRejected),
        (amqp.ConnectionForced("CONNECTION_FORCED - broker forced connection closure"), ConnectionLost),
        (amqp.NotAllowed("NOT_ALLOWED - vhost deleted"), ConnectionLost),
        (ConnectionResetError(104, "Connection reset by peer"), ConnectionLost),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_end_of_a_connection(error: Exception, kind: type[TransportError]) -> None:
    described = closed(error, PLAIN)
    assert type(described) is kind
    assert "the connection to the broker at broker:5672 ended: " in str(described)
