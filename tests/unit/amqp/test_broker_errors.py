"""Errors of the broker, of OpenSSL and of sockets become ours. The texts of the errors are those of RabbitMQ 3.10."""

from __future__ import annotations

import errno
import os
import ssl

import amqp
import pytest

from jsonrpc_amqp.amqp.base import Plan
from jsonrpc_amqp.amqp.broker_errors import describe
from jsonrpc_amqp.amqp.url import parse_urls
from jsonrpc_amqp.errors import AccessRefused, MessageTooLarge, NotConnected, TopologyMismatch, TransportError

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
            amqp.AccessRefused("ACCESS_REFUSED - access to exchange 'jsonrpc' refused", EXCHANGE_DECLARE),
            AccessRefused,
            ["Check user, password, virtual host and permissions", "declare=False"],
        ),
        (
            amqp.NotAllowed("NOT_ALLOWED - access to vhost 'orders' refused for user 'alice'"),
            AccessRefused,
            ["user 'alice' on virtual host 'orders'"],
        ),
        (
            amqp.NotAllowed("NOT_ALLOWED - access to vhost 'orders' refused: connection limit (1) is reached"),
            NotConnected,
            ["connection limit (1)"],
        ),
        (ConnectionRefusedError(111, "Connection refused"), NotConnected, ["broker:5672", "Connection refused"]),
        (ConnectionResetError(104, "Connection reset by peer"), NotConnected, ["does this port want TLS?"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_of_the_broker(error: Exception, kind: type[TransportError], texts: list[str]) -> None:
    text = said(error, kind=kind)
    assert [each for each in [*texts, "broker:5672"] if each not in text] == []


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
