"""Broker URLs and TLS options: what is read, what is refused, and what py-amqp is given (pure, but for file names)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
# What py-amqp's TLS takes.
_TLS_OPTIONS = {
    "ca_certs",
    "cert_reqs",
    "certfile",
    "ciphers",
    "keyfile",
    "server_hostname",
    "ssl_version",
    "tls_maximum_version",
    "tls_minimum_version",
}
_TLS_FILES = ("ca_certs", "certfile", "keyfile")
_TLS_QUERY = {"cacertfile", "certfile", "keyfile", "server_name_indication", "verify"}
# The query parameters of RabbitMQ's own URI specification that a JSON-RPC user may need.
_QUERY = {
    "auth_mechanism",
    "cacertfile",
    "certfile",
    "connection_timeout",
    "heartbeat",
    "keyfile",
    "server_name_indication",
    "verify",
}


@dataclass(frozen=True, slots=True)
class BrokerURL:
    """One broker to connect to. Its repr has no password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: bool
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"

    @property
    def auth_mechanism(self) -> str:
        """The SASL mechanism, in capitals."""
        return self.options.get("auth_mechanism", "PLAIN").upper()

    @property
    def is_external(self) -> bool:
        """Whether a certificate says who connects."""
        return self.auth_mechanism == "EXTERNAL"

    def heartbeat(self, default: float) -> float:
        """Return the interval of heartbeats in seconds."""
        return float(self.options.get("heartbeat", default))

    def connect_timeout(self, default: float) -> float:
        """Return the seconds for one attempt to connect; the URL has milliseconds."""
        return float(self.options.get("connection_timeout", default * 1000)) / 1000


def parse_urls(text: str) -> list[BrokerURL]:
    """
    Read ``amqp://user:password@host:port/vhost``, or several joined by ``;``, tried in turn.

    ``amqps://`` means TLS. Query parameters are those of RabbitMQ's URI specification.

    Raises:
        ValueError: With a message that has no part of the URL which could be secret.
    """
    return [_parse_url(part.strip()) for part in text.split(";")]


def _parse_url(text: str) -> BrokerURL:
    scheme = text.partition("://")[0]
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(
            "a broker URL starts with amqp://, amqps:// or memory://; so does each of several, which are joined by ';' "
            "(one in a password is escaped: %3B)"
        )
    try:
        # Split as http: urlsplit does not look for a query or a port in every scheme.
        parts = urlsplit(f"http{text.removeprefix(scheme)}")
        port, query = parts.port, dict(parse_qsl(parts.query))
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError  # a "/", "?" or "#" in the password cut the URL in the wrong place
    except ValueError:
        raise ValueError(
            "the broker URL is malformed: is its port no number up to 65535, or is a '/', '?', '#', '@' or ';' in "
            "the password not escaped?"
        ) from None
    unknown = sorted(set(query) - _QUERY)
    if unknown:
        raise ValueError(
            f"unknown parameter in the broker URL: {', '.join(unknown)}; known: {', '.join(sorted(_QUERY))}"
        )
    needless = sorted(set(query) & _TLS_QUERY)
    if needless and scheme != "amqps":
        raise ValueError(f"{', '.join(needless)} in an amqp:// URL, which has no TLS: amqps:// has")
    for name in ("heartbeat", "connection_timeout"):
        value = query.get(name, "0")
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{name} in the broker URL must be a number (seconds; connection_timeout: milliseconds)")
    if query.get("verify", "verify_peer") not in ("verify_peer", "verify_none"):
        raise ValueError("verify in the broker URL is verify_peer or verify_none")
    return BrokerURL(
        host=unquote(parts.hostname or "") or "localhost",
        port=port or _DEFAULT_PORTS[scheme],
        user=unquote(parts.username or "") or "guest",
        password=unquote(parts.password or "") or "guest",
        vhost=unquote(parts.path.removeprefix("/")) or "/",
        tls=scheme == "amqps",
        options=query,
    )


def check_tls(urls: list[BrokerURL], given: Mapping[str, Any] | None) -> None:
    """
    Refuse TLS options that would not be used: what was meant to be encrypted must not go out in the clear.

    Raises:
        ValueError: One is not known, or a URL is not ``amqps://``.
    """
    if given is None:
        return
    unknown = sorted(set(given) - _TLS_OPTIONS)
    if unknown:
        raise ValueError(f"unknown TLS option: {', '.join(unknown)}; known: {', '.join(sorted(_TLS_OPTIONS))}")
    if not all(url.tls for url in urls):
        raise ValueError("TLS options were given for an amqp:// URL, which has no TLS: amqps:// has")


def tls_options(url: BrokerURL, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    Return what py-amqp is given for TLS: host names are verified unless the URL or ``given`` says otherwise.

    Raises:
        OSError: A file cannot be read; the error names it.
    """
    options = url.options
    chosen: dict[str, Any] = {
        "ca_certs": options.get("cacertfile"),
        "certfile": options.get("certfile"),
        "keyfile": options.get("keyfile"),
        # ca_certs alone would accept a certificate for any host: naming the host makes Python verify it.
        "server_hostname": options.get("server_name_indication", url.host),
        "cert_reqs": ssl.CERT_REQUIRED,
    }
    if options.get("verify") == "verify_none":
        chosen["cert_reqs"] = ssl.CERT_NONE
    chosen |= {key: value for key, value in (given or {}).items() if value is not None}
    if chosen["cert_reqs"] == ssl.CERT_NONE:
        chosen["server_hostname"] = None  # there is no verifying a name without a certificate
    for name in _TLS_FILES:
        if chosen[name] is not None:
            # ssl's own error does not name the file.
            open(chosen[name], "rb").close()
    return {key: value for key, value in chosen.items() if value is not None}
