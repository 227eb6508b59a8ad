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


# -- the examples of https://www.rabbitmq.com/docs/uri-spec, appendix A ---------------------------------------------

HERE, GUEST = "localhost", "guest"
_: None = None  # an absent component, for which the specification lets an implementation have a default


@pytest.mark.parametrize(
    ("text", "user", "password", "host", "port", "vhost"),
    [
        ("amqp://user:pass@host:10000/vhost", "user", "pass", "host", 10000, "vhost"),
        ("amqp://user:passw%23rd@host:10000/vhost", "user", "passw#rd", "host", 10000, "vhost"),
        ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", "usera", "apass", "hoast", 10000, "v/host"),
        ("amqp://", _, _, _, _, _),
        # The virtual host is "" here by the specification. RabbitMQ has none of that name, kombu and pika take "/".
        ("amqp://:@/", "", "", _, _, _),
        ("amqp://user@", "user", _, _, _, _),
        ("amqp://user:pass@", "user", "pass", _, _, _),
        ("amqp://host", _, _, "host", _, _),
        ("amqp://:10000", _, _, _, 10000, _),
        ("amqp:///vhost", _, _, _, _, "vhost"),
        ("amqp://host/", _, _, "host", _, _),  # as above
        ("amqp://host/%2f", _, _, "host", _, "/"),
        ("amqp://[::1]", _, _, "::1", _, _),
    ],
)
def test_examples_of_the_specification(
    text: str, user: str | None, password: str | None, host: str | None, port: int | None, vhost: str | None
) -> None:
    expected = [
        GUEST if user is None else user,
        GUEST if password is None else password,
        host or HERE,
        port or 5672,
        vhost or "/",
    ]
    url = parse(text)
    assert [url.user, url.password, url.host, url.port, url.vhost] == expected
    assert parse(text.replace("amqp", "amqps")).port == (port or 5671)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("amqp://myhost?heartbeat=5&connection_timeout=10000", {"heartbeat": "5", "connection_timeout": "10000"}),
        (
            "amqps://myhost?cacertfile=/path/to/ca_certificate.pem&certfile=/path/to/client_certificate.pem"
            "&keyfile=/path/to/client_key.pem&verify=verify_peer&server_name_indication=myhost",
            {
                "cacertfile": "/path/to/ca_certificate.pem",
                "certfile": "/path/to/client_certificate.pem",
                "keyfile": "/path/to/client_key.pem",
                "verify": "verify_peer",
                "server_name_indication": "myhost",
            },
        ),
        ("amqps://myhost?verify=verify_none", {"verify": "verify_none"}),
    ],
)
def test_examples_of_query_parameters(text: str, options: dict[str, str]) -> None:
    """Those of https://www.rabbitmq.com/docs/uri-query-parameters."""
    assert parse(text).options == options


# -- the rest of the grammar ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Schemes are case-insensitive, RFC 3986, section 3.1.
        ("AMQP://host", {"host": "host", "port": 5672}),
        ("Amqps://host", {"tls": True, "port": 5671}),
        # An empty user or password is not an absent one.
        ("amqp://user:@host", {"user": "user", "password": ""}),
        ("amqp://user@host", {"user": "user", "password": "guest"}),
        ("amqp://:token@host", {"user": "", "password": "token"}),  # OAuth 2
        ("amqp://@host", {"user": "", "password": "guest"}),
        ("amqp://a:b:c@host", {"user": "a", "password": "b:c"}),
        ("amqp://a:b%3Ac%20%C3%A9@host", {"password": "b:c \u00e9"}),
        ("amqp://us%25er:%2500@host", {"user": "us%er", "password": "%00"}),
        ("amqp://a:b@c@host", {"user": "a", "password": "b@c", "host": "host"}),
        # Ports.
        ("amqp://host:", {"port": 5672}),
        ("amqp://host:1", {"port": 1}),
        ("amqp://host:65535", {"port": 65535}),
        ("amqp://host:05672", {"port": 5672}),
        # Hosts.
        ("amqp://HOST.Example", {"host": "host.example"}),
        ("amqp://host.", {"host": "host."}),
        ("amqp://a_b-c.d", {"host": "a_b-c.d"}),
        ("amqp://m\u00fcnchen.example", {"host": "m\u00fcnchen.example"}),
        ("amqp://127.0.0.1", {"host": "127.0.0.1", "where": "127.0.0.1:5672"}),
        ("amqp://[2001:DB8::1]:7", {"host": "2001:db8::1", "port": 7, "where": "[2001:db8::1]:7"}),
        ("amqp://[fe80::1%25eth0]", {"host": "fe80::1%eth0"}),  # RFC 6874
        ("amqp://[fe80::1%eth0]", {"host": "fe80::1%eth0"}),
        # Virtual hosts.
        ("amqp://host/%20", {"vhost": " "}),
        ("amqp://host/" + "%C3%A9" * 127 + "x", {"vhost": "\u00e9" * 127 + "x"}),
        ("amqp://host/v?", {"vhost": "v", "options": {}}),
        ("amqp://host/v?&", {"vhost": "v", "options": {}}),
        # Numbers at their limits.
        ("amqp://host?heartbeat=65535", {"options": {"heartbeat": "65535"}}),
        ("amqp://host?heartbeat=00", {"options": {"heartbeat": "00"}}),
        ("amqp://host?connection_timeout=1", {"options": {"connection_timeout": "1"}}),
        ("amqp://host?connection_timeout=2147483647", {"options": {"connection_timeout": "2147483647"}}),
        ("amqp://host?auth_mechanism=AMQPLAIN", {"auth_mechanism": "AMQPLAIN"}),
        ("  amqp://host\n", {"host": "host"}),
    ],
)
def test_grammar(text: str, expected: dict[str, Any]) -> None:
    url = parse(text)
    assert {name: getattr(url, name) for name in expected} == expected


_PLACE = r" \(in amqp://joe:\*\*\*@"


@pytest.mark.parametrize(
    ("rest", "match"),
    [
        ("host:0/v", rf"port in the broker URL is 0; .*{_PLACE}host:0/v\)"),
        ("host:00", "port in the broker URL is 0"),
        *(
            (f"host:{port}", "is its port no number up to 65535")
            for port in ("-1", "+1", "1e3", "0x10", "1_0", "x", "\u0663")
        ),
        ("host/%", rf"virtual host in the broker URL has a '%' without two hexadecimal digits.*{_PLACE}host/%\)"),
        ("host/%4", "virtual host .* two hexadecimal digits"),
        ("host/%zz", "virtual host .* two hexadecimal digits"),
        ("ho%zst", "the host .* two hexadecimal digits"),
        ("host/%ff", "virtual host in the broker URL is not UTF-8"),
        ("%fe", "the host in the broker URL is not UTF-8"),
        ("host?certfile=%f", "a parameter .* two hexadecimal digits"),
        ("host?certfile=%ff", "a parameter in the broker URL is not UTF-8"),
        ("host/" + "v" * 256, "virtual host in the broker URL has 256 bytes; AMQP has room for 255"),
        ("host/" + "%C3%A9" * 128, "has 256 bytes"),
        ("a..b", "is no host name"),
        ("a" * 64, "is no host name"),
        ("a%20b", "is no host name"),
        ("a%00b", "is no host name"),
        ("[fe80::1%25]", "zone of the IPv6 address in the broker URL is empty"),
        ("[::1", "malformed"),
        ("::1", "malformed"),
        ("host#fragment", "malformed"),
        ("host/v#", "malformed"),
        ("ho st", "space or a control character"),
        ("host/a b", "space or a control character"),
        ("ho\nst", "space or a control character"),
        ("ho\tst", "space or a control character"),
        ("host/\0", "space or a control character"),
        ("host/\u2028v", "space or a control character"),
        ("host?heartbeat=1&heartbeat=1", "heartbeat is given more than once"),
        ("host?auth_mechanism=plain&auth_mechanism=external", "auth_mechanism is given more than once"),
        ("host?heartbeat=", "heartbeat in the broker URL has no value"),
        ("host?heartbeat", "heartbeat in the broker URL has no value"),
        ("host?=1", "unknown parameter"),
        ("host?Heartbeat=1", "unknown parameter in the broker URL: Heartbeat"),
        ("host?a%0ab=1", r"unknown parameter in the broker URL: a\\nb;"),
        ("host?" + "x" * 5000, r"unknown parameter in the broker URL: x{100}\.\.\.;"),
        ("host?connection_timeout=0", "connection_timeout in the broker URL must be a number of milliseconds from 1"),
        ("host?connection_timeout=2147483648", "connection_timeout in the broker URL must be"),
        ("host?heartbeat=65536", "heartbeat in the broker URL must be a number of seconds from 0 to 65535"),
        *(
            (f"host?{name}={value}", f"{name} in the broker URL must be a number")
            for name in ("heartbeat", "connection_timeout")
            for value in ("nan", "inf", "-1", "+1", "1e999", "1.0", "0x1", "9" * 5000, "\u0661", "1%00", "%20")
        ),
        ("host?auth_mechanism=login", "auth_mechanism in the broker URL is plain or amqplain or external or gssapi"),
    ],
)
def test_what_breaks_the_grammar(rest: str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        parse_urls(f"amqp://joe:s3cret@{rest}")
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("userinfo", "match"),
    [
        ("joe:s3%cret", "the password .* two hexadecimal digits"),
        ("joe:s3cret%ff", "the password in the broker URL is not UTF-8"),
        ("joe:s3%00cret", "the password in the broker URL has a NUL"),
        ("j%00oe:s3cret", "the user in the broker URL has a NUL"),
        ("j%oe:s3cret", "the user .* two hexadecimal digits"),
        ("joe:s3 cret", "space or a control character"),
        ("joe:s3\ncret", "space or a control character"),
    ],
)
def test_a_user_or_password_that_cannot_be_sent(userinfo: str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        parse_urls(f"amqp://{userinfo}@host")
    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", ";", "amqp://a;", ";amqp://a", "amqp://a;;amqp://b", "amqp://a;memory://"])
def test_each_of_several_is_a_url(text: str) -> None:
    with pytest.raises(ValueError, match="so does each of several"):
        parse_urls(text)


def test_several_are_read_by_the_same_grammar() -> None:
    with pytest.raises(ValueError, match=r"port in the broker URL is 0.*in amqps://b:0"):
        parse_urls("amqp://a;amqps://b:0")


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
        ("amqp://joe:s3cret@host;", "starts with amqp://"),
        ("amqp://joe:0/s3;cret@host", "one in a password is escaped: %3B"),
        ("amqp://joe:s3;cret@host", "one in a password is escaped: %3B"),
        ("amqp://joe:3;cret@host", "one in a password is escaped: %3B"),
        ("amqp://joe:3/cret@host", "in the password not escaped"),
        ("amqp://joe:3?cret@host", "in the password not escaped"),
        ("amqp://joe:3#cret@host", "in the password not escaped"),
        ("amqp://joe:s3/cret@host", "in the password not escaped"),
        ("amqp://joe:s3?cret@host", "in the password not escaped"),
        ("amqp://joe:s3#cret@host", "in the password not escaped"),
        ("amqp://joe:s3cret@host:port", "is its port no number"),
        ("amqp://joe:s3cret@host:65536", "is its port no number"),
        ("amqp://joe:s3cret@\u2100", "malformed"),
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
