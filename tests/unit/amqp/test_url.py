"""Broker URLs: what is read, what is refused without showing a password, and what TLS is given."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp.amqp.url import BrokerURL, check_tls, parse_urls, tls_options


def parse(text: str) -> BrokerURL:
    (url,) = parse_urls(text)
    return url


# -- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://", BrokerURL("localhost", 5672, "guest", "guest", "/", tls=False)),
        ("amqps://", BrokerURL("localhost", 5671, "guest", "guest", "/", tls=True)),
        ("amqp://host", BrokerURL("host", 5672, "guest", "guest", "/", tls=False)),
        ("amqp://host/", BrokerURL("host", 5672, "guest", "guest", "/", tls=False)),
        ("amqp://joe:pw@host:1234/vhost", BrokerURL("host", 1234, "joe", "pw", "vhost", tls=False)),
        ("amqp://joe@host", BrokerURL("host", 5672, "joe", "guest", "/", tls=False)),
        ("amqp://host/%2F", BrokerURL("host", 5672, "guest", "guest", "/", tls=False)),
        ("amqp://host//", BrokerURL("host", 5672, "guest", "guest", "/", tls=False)),
        ("amqp://host/a%2Fb", BrokerURL("host", 5672, "guest", "guest", "a/b", tls=False)),
        ("amqp://host/a/b", BrokerURL("host", 5672, "guest", "guest", "a/b", tls=False)),
        ("amqp://[::1]:1234", BrokerURL("::1", 1234, "guest", "guest", "/", tls=False)),
        (
            "amqp://j%40e:%2F%3F%23%40%3B%3A%25@host",
            BrokerURL("host", 5672, "j@e", "/?#@;:%", "/", tls=False),
        ),
    ],
)
def test_a_url_is_read(text: str, expected: BrokerURL) -> None:
    assert parse(text) == expected


def test_several_are_joined_by_semicolons() -> None:
    urls = parse_urls("amqp://a; amqps://b:1 ;amqp://c?heartbeat=3")
    assert [url.where for url in urls] == ["a:5672", "b:1", "c:5672"]


def test_options_and_their_defaults() -> None:
    bare = parse("amqp://host")
    assert (bare.heartbeat(10.0), bare.connect_timeout(5.0)) == (10.0, 5.0)
    assert (bare.auth_mechanism, bare.is_external) == ("PLAIN", False)
    full = parse("amqps://host?heartbeat=7&connection_timeout=1500&auth_mechanism=external")
    assert (full.heartbeat(10.0), full.connect_timeout(5.0)) == (7.0, 1.5)
    assert (full.auth_mechanism, full.is_external) == ("EXTERNAL", True)


def test_a_heartbeat_of_zero_turns_heartbeats_off() -> None:
    assert parse("amqp://host?heartbeat=0").heartbeat(10.0) == 0.0


def test_the_repr_has_no_password() -> None:
    assert "s3cret" not in repr(parse("amqp://joe:s3cret@host"))


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "starts with amqp://, amqps:// or memory://"),
        ("http://joe:s3cret@host", "starts with amqp://"),
        ("joe:s3cret@host", "starts with amqp://"),
        ("AMQP://joe:s3cret@host", "starts with amqp://"),
        ("amqp://joe:s3cret@host;", "starts with amqp://"),
        ("amqp://joe:s3;cret@host", "in the password not escaped"),
        ("amqp://joe:3;cret@host", "one in a password is escaped: %3B"),
        ("amqp://joe:3/cret@host", "in the password not escaped"),
        ("amqp://joe:3?cret@host", "in the password not escaped"),
        ("amqp://joe:3#cret@host", "in the password not escaped"),
        ("amqp://joe:s3/cret@host", "in the password not escaped"),
        ("amqp://joe:s3?cret@host", "in the password not escaped"),
        ("amqp://joe:s3#cret@host", "in the password not escaped"),
        ("amqp://joe:s3cret@host:port", "is its port no number"),
        ("amqp://joe:s3cret@host:65536", "is its port no number"),
        ("amqp://joe:s3cret@host?hartbeat=1", "unknown parameter in the broker URL: hartbeat; known: auth_mechanism"),
        ("amqp://joe:s3cret@host?cacertfile=x&verify=verify_none", "cacertfile, verify in an amqp:// URL"),
        ("amqp://joe:s3cret@host?heartbeat=1.5", "heartbeat in the broker URL must be a number"),
        ("amqp://joe:s3cret@host?heartbeat=-1", "heartbeat in the broker URL must be a number"),
        ("amqp://joe:s3cret@host?connection_timeout=\u0661", "connection_timeout in the broker URL must be a number"),
        ("amqps://joe:s3cret@host?verify=no", "verify_peer or verify_none"),
    ],
)
def test_what_is_refused_does_not_show_the_password(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        parse_urls(text)
    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# -- TLS ------------------------------------------------------------------------------------------------------------


def test_tls_options_are_refused_where_they_would_not_be_used() -> None:
    check_tls(parse_urls("amqp://a"), None)
    check_tls(parse_urls("amqps://a;amqps://b"), {"ca_certs": "ca.pem"})
    with pytest.raises(ValueError, match="amqp:// URL, which has no TLS"):
        check_tls(parse_urls("amqps://a;amqp://b"), {"ca_certs": "ca.pem"})
    with pytest.raises(ValueError, match="unknown TLS option: cafile; known: ca_certs, "):
        check_tls(parse_urls("amqps://a"), {"cafile": "ca.pem", "ca_certs": "ca.pem"})


def test_host_names_are_verified_by_default() -> None:
    assert tls_options(parse("amqps://host"), None) == {"server_hostname": "host", "cert_reqs": ssl.CERT_REQUIRED}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem", "other.pem")}
    for path in paths.values():
        Path(path).touch()
    return paths


def test_the_url_names_files_and_the_host(files: dict[str, str]) -> None:
    query = f"cacertfile={files['ca.pem']}&certfile={files['cert.pem']}&keyfile={files['key.pem']}"
    assert tls_options(parse(f"amqps://host?{query}&server_name_indication=other"), None) == {
        "ca_certs": files["ca.pem"],
        "certfile": files["cert.pem"],
        "keyfile": files["key.pem"],
        "server_hostname": "other",
        "cert_reqs": ssl.CERT_REQUIRED,
    }


def test_options_win_over_the_url_unless_they_are_none(files: dict[str, str]) -> None:
    url = parse(f"amqps://host?cacertfile={files['ca.pem']}")
    chosen = tls_options(url, {"ca_certs": files["other.pem"], "server_hostname": None, "ciphers": "HIGH"})
    assert chosen["ca_certs"] == files["other.pem"]
    assert (chosen["server_hostname"], chosen["ciphers"]) == ("host", "HIGH")


@pytest.mark.parametrize(
    ("text", "given"),
    [("amqps://host?verify=verify_none", None), ("amqps://host", {"cert_reqs": ssl.CERT_NONE})],
)
def test_without_verifying_there_is_no_host_name(text: str, given: dict[str, Any] | None) -> None:
    assert tls_options(parse(text), given) == {"cert_reqs": ssl.CERT_NONE}


def test_options_can_ask_for_more_than_the_url(files: dict[str, str]) -> None:
    url = parse("amqps://host?verify=verify_none")
    chosen = tls_options(url, {"cert_reqs": ssl.CERT_REQUIRED})
    assert chosen == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "host"}


@pytest.mark.parametrize("name", ["cacertfile", "certfile", "keyfile"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pem"):
        tls_options(parse(f"amqps://host?{name}={tmp_path}/missing.pem"), None)
