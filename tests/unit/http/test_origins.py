"""Which hosts and origins may call."""

from __future__ import annotations

from typing import Any

import pytest

from jsonrpc_amqp.http.origins import Origins


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "localhost.", "a.localhost:1", "127.0.0.1", "127.0.0.1:8080", "10.1.2.3",
     "[::1]:80", "[fe80::1]", "example.com", "Example.COM:8080", "example.com."],
)  # fmt: skip
def test_hosts(host: str) -> None:
    assert Origins(["example.com"]).allows_host([host])


@pytest.mark.parametrize(
    "hosts",
    [["example.com"], ["evil.example:8080"], ["localhost.evil.example"], ["evillocalhost"], ["127.0.0.1.evil.example"],
     [""], ["a b"], ["localhost/x"], ["user@localhost"], ["localhost:x"], ["localhost", "localhost"], ["::1"],
     ["[evil]"], ["x" * 100_000], ["\x1b"]],
)  # fmt: skip
def test_other_hosts(hosts: list[str]) -> None:
    assert not Origins().allows_host(hosts)
    assert Origins(["*"]).allows_host(hosts)


def test_a_request_without_a_host_comes_from_no_browser() -> None:
    assert Origins().allows_host([])


@pytest.mark.parametrize(
    ("origins", "sites", "hosts"),
    [
        ([], [], ["localhost"]),  # no browser
        ([], ["same-origin"], ["localhost"]),
        ([], ["none"], ["localhost"]),  # typed by a person
        (["http://localhost:8080"], [], ["localhost:8080"]),
        (["http://LOCALHOST"], [], ["localhost:80"]),
        (["https://localhost"], [], ["localhost"]),  # behind a proxy that ends TLS
        (["http://[::1]:8080"], [], ["[::1]:8080"]),
        # Behind a proxy that sets Host.
        (["https://api.example"], ["same-origin"], ["127.0.0.1:8080"]),
    ],
)
def test_origins(origins: list[str], sites: list[str], hosts: list[str]) -> None:
    assert Origins().allows_origin(origins, sites, hosts)


@pytest.mark.parametrize(
    ("origins", "sites", "hosts"),
    [
        (["http://evil.example"], [], ["localhost:8080"]),
        (["http://evil.example"], ["cross-site"], ["localhost:8080"]),
        (["http://localhost:9999"], ["same-site"], ["localhost:8080"]),
        (["http://localhost:9999"], [], ["localhost:8080"]),
        (["http://localhost:8080"], ["cross-site"], ["localhost:8080"]),
        ([], ["cross-site"], ["localhost"]),
        (["null"], [], ["null"]),
        ([""], [], [""]),
        (["http://localhost", "http://evil.example"], [], ["localhost"]),
        (["http://localhost"], [], ["localhost", "localhost"]),
        (["http://localhost"], [], []),
        (["file://localhost"], [], ["localhost"]),
        (["http://localhost/"], [], ["localhost"]),
        (["http://localhost"], ["same-origin", "same-origin"], ["localhost"]),
    ],
)
def test_other_origins(origins: list[str], sites: list[str], hosts: list[str]) -> None:
    assert not Origins(origins=["https://page.example"]).allows_origin(origins, sites, hosts)
    assert Origins(origins=["*"]).allows_origin(origins, sites, hosts)


def test_an_origin_that_is_allowed() -> None:
    allowed = Origins(origins=["https://Page.example", "http://[::1]:99"])
    assert allowed.allows_origin(["https://page.example"], ["cross-site"], ["localhost"])
    assert allowed.allows_origin(["https://page.example:443"], [], ["localhost"])
    assert allowed.allows_origin(["http://[::1]:99"], [], ["localhost"])
    assert not allowed.allows_origin(["http://page.example"], [], ["localhost"])


@pytest.mark.parametrize("host", ["", "a b", "a:80", "http://a", "a/b", "[::1]:80"])
def test_a_malformed_host(host: str) -> None:
    with pytest.raises(ValueError, match="without a port"):
        Origins([host])


@pytest.mark.parametrize("origin", ["", "a", "a.example", "ftp://a", "https://a/", "https://a:x", "https://", "null"])
def test_a_malformed_origin(origin: str) -> None:
    with pytest.raises(ValueError, match=r"https://example\.com"):
        Origins(origins=[origin])


@pytest.mark.parametrize("arguments", [{"hosts": "localhost"}, {"origins": "https://a.example"}])
def test_one_name_is_no_list(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="lists"):
        Origins(**arguments)
