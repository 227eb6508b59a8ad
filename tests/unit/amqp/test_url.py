"""Broker URLs and TLS options: what is read, what is refused, and that no error shows a password."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp.amqp.url import BrokerURL, check_tls, parse_urls, tls_options


def parse(text: str) -> BrokerURL:
    (url,) = parse_urls(text)
    return url


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://", BrokerURL("localhost", 5672, "guest", "guest", "/", False)),
        ("amqps://", BrokerURL("localhost", 5671, "guest", "guest", "/", True)),
        ("amqp://host", BrokerURL("host", 5672, "guest", "guest", "/", False)),
        ("amqp://host:1/", BrokerURL("host", 1, "guest", "guest", "/", False)),
        ("amqp://host:65535/vh", BrokerURL("host", 65535, "guest", "guest", "vh", False)),
        ("amqp://alice:secret@host:5673/vh", BrokerURL("host", 5673, "alice", "secret", "vh", False)),
        ("amqp://alice@host", BrokerURL("host", 5672, "alice", "guest", "/", False)),
        ("amqp://host/%2F", BrokerURL("host", 5672, "guest", "guest", "/", False)),
        ("amqp://host/%2fa%2Fb", BrokerURL("host", 5672, "guest", "guest", "/a/b", False)),
        ("amqp://us%40er:p%3A%2F%3F%23%40%3B@host", BrokerURL("host", 5672, "us@er", "p:/?#@;", "/", False)),
        ("amqp://%C3%BC:%C3%9F@host/%C3%A4", BrokerURL("host", 5672, "ü", "ß", "ä", False)),
        ("amqp://a:b:c@host", BrokerURL("host", 5672, "a", "b:c", "/", False)),
        ("amqp://[::1]:5673/vh", BrokerURL("::1", 5673, "guest", "guest", "vh", False)),
        (" amqp://host ", BrokerURL("host", 5672, "guest", "guest", "/", False)),
    ],
)
def test_the_parts_of_a_url(text: str, expected: BrokerURL) -> None:
    assert parse(text) == expected


def test_several_are_tried_in_turn() -> None:
    urls = parse_urls("amqp://one; amqps://two:1/vh ;amqp://three")
    assert [(url.where, url.tls, url.vhost) for url in urls] == [
        ("one:5672", False, "/"),
        ("two:1", True, "vh"),
        ("three:5672", False, "/"),
    ]


def test_parameters_of_the_query() -> None:
    url = parse("amqp://host?heartbeat=7&connection_timeout=2500")
    assert (url.heartbeat(10), url.connect_timeout(5)) == (7.0, 2.5)
    without = parse("amqp://host")
    assert (without.heartbeat(10), without.connect_timeout(5)) == (10.0, 5.0)
    assert parse("amqp://host?heartbeat=0").heartbeat(10) == 0


@pytest.mark.parametrize("text", ["external", "EXTERNAL", "External"])
def test_the_mechanism_may_be_written_as_one_likes(text: str) -> None:
    url = parse(f"amqps://host?auth_mechanism={text}")
    assert (url.auth_mechanism, url.is_external) == ("EXTERNAL", True)


def test_the_mechanism_is_plain_by_default() -> None:
    assert (parse("amqp://host").auth_mechanism, parse("amqp://host").is_external) == ("PLAIN", False)


def test_its_repr_has_no_password() -> None:
    text = repr(parse("amqp://alice:hunter2@host"))
    assert "hunter2" not in text
    assert "alice" in text


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a broker URL starts with"),
        ("alice:hunter2@host", "a broker URL starts with"),
        ("http://alice:hunter2@host", "a broker URL starts with"),
        ("AMQP://alice:hunter2@host", "a broker URL starts with"),
        ("memory://hunter2", "a broker URL starts with"),
        ("amqp://alice:hun;ter2@host", "malformed"),
        ("amqp://alice:1;hunter2@host", "joined by ';'"),
        ("amqp://host;", "a broker URL starts with"),
        ("amqp://alice:hunter2@host:port", "malformed"),
        ("amqp://alice:hunter2@host:65536", "malformed"),
        ("amqp://alice:hunter2@host:-1", "malformed"),
        ("amqp://alice:hunter2@[::1", "malformed"),
        ("amqp://alice:hunter2/more@host", "malformed"),
        ("amqp://alice:/hunter2@host", "malformed"),
        ("amqp://alice:1/hunter2@host", "malformed"),
        ("amqp://alice:1?hunter2@host", "malformed"),
        ("amqp://alice:hunter2?x@host", "malformed"),
        ("amqp://alice:hunter2#x@host", "malformed"),
        ("amqp://alice:1#hunter2@host", "malformed"),
        ("amqp://alice:hunter2@host?retries=3", "unknown parameter in the broker URL: retries; known: auth_mechanism"),
        ("amqp://alice:hunter2@host?heartbeat=-1", "heartbeat in the broker URL must be a number"),
        ("amqp://alice:hunter2@host?heartbeat=1.5", "heartbeat in the broker URL must be a number"),
        ("amqp://alice:hunter2@host?heartbeat=%C2%B2", "heartbeat in the broker URL must be a number"),
        ("amqp://alice:hunter2@host?connection_timeout=5s", "connection_timeout in the broker URL must be a number"),
        ("amqp://alice:hunter2@host?verify=verify_none", "verify in an amqp:// URL, which has no TLS"),
        ("amqp://alice:hunter2@host?cacertfile=ca&certfile=c", "cacertfile, certfile in an amqp:// URL"),
        ("amqps://alice:hunter2@host?verify=none", "verify in the broker URL is verify_peer or verify_none"),
        ("amqps://alice:hunter2@one;amqp://bob:hunter2@two:x", "malformed"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_showing_a_password(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_urls(text)
    error: BaseException | None = caught.value
    while error is not None:  # nor is it shown by what a traceback prints above it
        assert not any(part in str(error) for part in ("hunter2", "hun;", "ter2"))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# -- TLS ------------------------------------------------------------------------------------------


def test_without_options_any_url_passes() -> None:
    check_tls(parse_urls("amqp://;amqps://"), None)


def test_options_of_tls_need_a_url_with_tls() -> None:
    check_tls(parse_urls("amqps://one;amqps://two"), {"ca_certs": "ca.pem"})
    for text in ("amqp://", "amqps://one;amqp://two"):
        for given in ({"ca_certs": "ca.pem"}, {}):
            with pytest.raises(ValueError, match="TLS options were given for an amqp:// URL"):
                check_tls(parse_urls(text), given)


def test_an_unknown_option_of_tls_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown TLS option: cafile, verify; known: ca_certs"):
        check_tls(parse_urls("amqps://"), {"verify": False, "cafile": "ca.pem"})


def test_certificate_and_host_are_verified_by_default() -> None:
    assert tls_options(parse("amqps://host"), None) == {"server_hostname": "host", "cert_reqs": ssl.CERT_REQUIRED}


def files(folder: Path, *names: str) -> list[str]:
    paths = [folder / name for name in names]
    for path in paths:
        path.touch()
    return [str(path) for path in paths]


def test_files_and_the_name_of_the_url(tmp_path: Path) -> None:
    ca, cert, key = files(tmp_path, "ca", "cert", "key")
    url = parse(f"amqps://host?cacertfile={ca}&certfile={cert}&keyfile={key}&server_name_indication=other")
    assert tls_options(url, None) == {
        "ca_certs": ca,
        "certfile": cert,
        "keyfile": key,
        "server_hostname": "other",
        "cert_reqs": ssl.CERT_REQUIRED,
    }


def test_options_that_are_given_come_before_the_url_and_none_leaves_it(tmp_path: Path) -> None:
    ca, other, cert = files(tmp_path, "ca", "other", "cert")
    url = parse(f"amqps://host?cacertfile={ca}&certfile={cert}")
    given: dict[str, Any] = {"ca_certs": other, "certfile": None, "ciphers": "ECDHE"}
    chosen = tls_options(url, given)
    assert (chosen["ca_certs"], chosen["certfile"], chosen["ciphers"]) == (other, cert, "ECDHE")
    assert chosen["cert_reqs"] == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("text", "given"),
    [("amqps://host?verify=verify_none", None), ("amqps://host", {"cert_reqs": ssl.CERT_NONE})],
)
def test_without_verification_no_host_is_verified(text: str, given: dict[str, Any] | None) -> None:
    assert tls_options(parse(text), given) == {"cert_reqs": ssl.CERT_NONE}


def test_verification_that_is_given_comes_before_that_of_the_url() -> None:
    url = parse("amqps://host?verify=verify_none")
    chosen = tls_options(url, {"cert_reqs": ssl.CERT_REQUIRED})
    assert chosen == {"server_hostname": "host", "cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.parametrize("name", ["ca_certs", "certfile", "keyfile"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "missing.pem")
    with pytest.raises(FileNotFoundError) as caught:
        tls_options(parse("amqps://host"), {name: path})
    assert caught.value.filename == path
