"""Content types and encodings, and what is logged of an HTTP response."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.http.headers import content_coding, described, is_json, secrets_of


@pytest.mark.parametrize(
    "values",
    [
        ["application/json"],
        ["Application/JSON-RPC"],
        [" application/json "],
        ["application/json;"],
        ["application/json; ;;"],
        ["application/json; charset=utf-8"],
        ["application/json;charset=UTF8"],
        ['application/json; Charset="utf-8"'],
        ["application/json; indent=4"],
        ["application/json ;\tprofile=x ; q"],
        ['application/json; profile="a;b,c=\\"d"; charset=utf-8'],
    ],
)
def test_json(values: list[str]) -> None:
    assert is_json(values)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["text/plain"],
        ["application/jsonp"],
        ["application/json/x"],
        ["application/json, text/plain"],
        ["application/json", "text/plain"],
        ["application/json", "application/json"],
        ["application/json; a=b, text/plain"],
        ["application/json; charset=utf-16"],
        ["application/json; charset=utf-8; charset=utf-16"],
        ['application/json; charset="utf-8;x"'],
        ['application/json; profile="open'],
        ["application/json; a=b c"],
        # Not a matter of exponential time.
        ["application/json" + "; \t " * 10_000 + "\x00"],
        ['application/json; a="' + "\\" * 10_001 + '"'],
    ],
)
def test_not_json(values: list[str]) -> None:
    assert not is_json(values)


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], None),
        ([""], None),
        (["identity"], None),
        ([" Identity , identity"], None),
        (["gzip"], "'gzip'"),
        (["GZIP"], "'gzip'"),
        (["identity, br", "gzip"], "'br, gzip'"),
        (["a\x1bb"], "'a\\x1bb'"),
        (["x" * 5000], f"'{'x' * 100}...'"),
    ],
)
def test_content_coding(values: list[str], coding: str | None) -> None:
    assert content_coding(values) == coding


def test_what_is_logged_of_a_response() -> None:
    headers = {"Content-Type": "text/html", "Content-Length": "9", "Content-Encoding": "br", "Server": "x"}
    assert described(502, headers, b"<html>\n\x1b\xff") == (
        "HTTP status 502, Content-Type 'text/html', Content-Encoding 'br', Content-Length '9', 9 bytes: "
        "'<html>\\n\\x1b\\\\xff'"
    )


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://joe:s3cret@host/path?token=s3cret", "'https://***@host/path?...'"),
        ("//joe:s3cret@host/", "'//joe:s3cret@host/'"),
        ("/path", "'/path'"),
    ],
)
def test_no_credentials_of_a_location(location: str, shown: str) -> None:
    shown = shown.replace("joe:s3cret", "***")
    assert described(302, {"Location": location}, b"") == f"HTTP status 302, Location {shown}, 0 bytes: ''"


def test_no_credentials_of_urls_in_the_body() -> None:
    text = described(200, {}, b'<a href="http://joe:s3cret@host/">' + b"x" * 5000)
    assert "http://***@host/" in text
    assert "s3cret" not in text
    assert "5034 bytes" in text
    assert len(text) < 400


def test_no_headers_of_the_request_that_an_error_page_repeats() -> None:
    secrets = secrets_of(
        {"Authorization": "Bearer abc.def-123", "X-Tenant": "7", "Cookie": "a=s3cret-value; b=2"}, None, None
    )
    assert set(secrets) == {"abc.def-123", "Bearer", "s3cret-value"}
    page = b"Headers: Authorization: Bearer abc.def-123; Cookie: a=s3cret-value; b=2; X-Tenant: 7"
    text = described(500, {"Content-Type": "text/abc.def-123"}, page, secrets)
    assert "abc.def" not in text
    assert "s3cret" not in text
    assert "X-Tenant: 7" in text


def test_the_credentials_of_a_url_are_secrets() -> None:
    assert set(secrets_of({}, "joe", "s3cret")) == {"s3cret", "am9lOnMzY3JldA=="}
    assert secrets_of({}, None, None) == ()
