"""Broker URLs and TLS options: what is read, what is refused, and what py-amqp is given (pure, but for file names)."""

from __future__ import annotations

import re
import ssl
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

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

# Each with the least and the most that is taken. Heartbeats have 16 bits in AMQP; timeouts of sockets 31.
_NUMBERS = {"heartbeat": (0, 0xFFFF, "seconds"), "connection_timeout": (1, 0x7FFFFFFF, "milliseconds")}
_CHOICES = {
    "verify": ("verify_peer", "verify_none"),
    # What py-amqp can do.
    "auth_mechanism": ("plain", "amqplain", "external", "gssapi"),
}
# A shortstr.
_MAX_VHOST_BYTES = 255
_MAX_SHOWN = 100
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_NOT_ESCAPED = "{} in the broker URL has a '%' without two hexadecimal digits behind it; a '%' itself is %25"
_NOT_UTF8 = "{} in the broker URL is not UTF-8 when its %XX are decoded"


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
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

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


def common_user(urls: Iterable[BrokerURL]) -> str | None:
    """Return the user of URLs; None where it is empty, a certificate says who connects, or they differ."""
    users = {None if url.is_external else url.user or None for url in urls}
    return users.pop() if len(users) == 1 else None


def parse_urls(text: str) -> list[BrokerURL]:
    """
    Read ``amqp://user:password@host:port/vhost``, or several joined by ``;``, tried in turn.

    ``amqps://`` means TLS. The grammar is that of RabbitMQ's URI specification
    (https://www.rabbitmq.com/docs/uri-spec), and query parameters are those of
    https://www.rabbitmq.com/docs/uri-query-parameters. An absent user or password is ``guest``, an absent host
    ``localhost``; an empty user or password is empty. Unlike the specification, an empty virtual host is ``/``, and
    one may have a "/" that is not escaped.

    Raises:
        ValueError: With a message that has no part of the URL which could be secret.
    """
    parts = [part.strip().partition("://") for part in text.split(";")]
    # All of them first: a ";" in a password cuts a URL in the wrong place, so that errors would show a part of it.
    if not all(scheme.lower() in _DEFAULT_PORTS for scheme, _, _ in parts):
        raise ValueError(
            "a broker URL starts with amqp://, amqps:// or memory://; so does each of several, which are joined by ';' "
            "(one in a password is escaped: %3B)"
        )
    return [_parse_url(scheme.lower(), rest) for scheme, _, rest in parts]


def _parse_url(scheme: str, rest: str) -> BrokerURL:
    if not rest.isprintable() or " " in rest:
        # urlsplit would silently remove some of these.
        raise ValueError("the broker URL has a space or a control character in it: escape it, such as %20")
    try:
        # Split as http: urlsplit does not look for a query or a port in every scheme.
        parts = urlsplit(f"http://{rest}")
        port = parts.port
        if "@" in parts.path + parts.query or "#" in rest:
            raise ValueError  # a "/", "?" or "#" in the password cut the URL in the wrong place
    except ValueError:
        raise ValueError(
            "the broker URL is malformed: is its port no number up to 65535, or is a '/', '?', '#', '@' or ';' in "
            "the password not escaped?"
        ) from None
    try:
        return _checked(scheme, parts, port)
    except ValueError as error:
        # Its parts are known by now: the password is not in another one.
        user = "" if parts.username is None else f"{parts.username}:***@"
        place = parts.netloc.rpartition("@")[2]
        raise ValueError(f"{error} (in {_cut(f'{scheme}://{user}{place}{parts.path}')})") from None


def _checked(scheme: str, parts: SplitResult, port: int | None) -> BrokerURL:
    tls = scheme == "amqps"
    query = _query(parts.query)
    needless = sorted(set(query) & _TLS_QUERY)
    if needless and not tls:
        raise ValueError(f"{', '.join(needless)} in an amqp:// URL, which has no TLS: amqps:// has")
    if port == 0:
        raise ValueError("the port in the broker URL is 0; ports are numbers from 1 to 65535")
    return BrokerURL(
        host=_host(parts),
        port=port or _DEFAULT_PORTS[scheme],
        user=_credential("user", parts.username),
        password=_credential("password", parts.password),
        vhost=_vhost(parts.path),
        tls=tls,
        options=query,
    )


def _query(text: str) -> dict[str, str]:
    """Return the parameters; each has been checked."""
    if _BAD_ESCAPE.search(text):
        raise ValueError(_NOT_ESCAPED.format("a parameter"))
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(_NOT_UTF8.format("a parameter")) from None
    query = dict(pairs)
    unknown = sorted(set(query) - _QUERY)
    if unknown:
        shown = _cut(", ".join(unknown))
        raise ValueError(f"unknown parameter in the broker URL: {shown}; known: {', '.join(sorted(_QUERY))}")
    if len(pairs) > len(query):
        repeated = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{', '.join(repeated)} is given more than once in the broker URL")
    for name, value in query.items():
        if not value:
            raise ValueError(f"{name} in the broker URL has no value")
    for name, (least, most, unit) in _NUMBERS.items():
        value = query.get(name, str(least))
        # Cut, since converting a very long number takes long, or fails.
        if not (value.isascii() and value.isdigit() and least <= int(value.lstrip("0")[:20] or "0") <= most):
            raise ValueError(f"{name} in the broker URL must be a number of {unit} from {least} to {most}")
    for name, values in _CHOICES.items():
        value = query.get(name, values[0])
        if (value.lower() if name == "auth_mechanism" else value) not in values:
            raise ValueError(f"{name} in the broker URL is {' or '.join(values)}")
    return query


def _host(parts: SplitResult) -> str:
    # urlsplit removes the brackets of an IPv6 address.
    text = parts.hostname or ""
    if ":" in text:
        # https://www.rfc-editor.org/rfc/rfc6874: its zone is behind "%25"; many programs take a "%" alone.
        address, percent, zone = text.partition("%")
        zone = zone.removeprefix("25")
        if percent and not zone:
            raise ValueError("the zone of the IPv6 address in the broker URL is empty")
        return f"{address}{percent}{_unescape('the zone', zone)}"
    host = _unescape("the host", text)
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("the host in the broker URL is no host name: a part of it is empty or too long") from None
    if not host.isprintable() or " " in host:
        raise ValueError("the host in the broker URL is no host name: it has a space or a control character in it")
    return host or "localhost"


def _credential(which: str, text: str | None) -> str:
    """Return the user or the password; what is empty was given, and what is None was not."""
    if text is None:
        return "guest"
    value = _unescape(f"the {which}", text)
    if "\0" in value:
        raise ValueError(f"the {which} in the broker URL has a NUL in it, which separates the two in a login")
    return value


def _vhost(path: str) -> str:
    vhost = _unescape("the virtual host", path.removeprefix("/")) or "/"
    size = len(vhost.encode())
    if size > _MAX_VHOST_BYTES:
        raise ValueError(f"the virtual host in the broker URL has {size} bytes; AMQP has room for {_MAX_VHOST_BYTES}")
    return vhost


def _unescape(which: str, text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ValueError(_NOT_ESCAPED.format(which))
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(_NOT_UTF8.format(which)) from None


def _cut(text: str) -> str:
    """Return text for a message: of printable ASCII, and not too long."""
    return ascii(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")[1:-1]


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
        # The zone of an IPv6 address is this machine's own.
        "server_hostname": options.get("server_name_indication", url.host.partition("%")[0]),
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
