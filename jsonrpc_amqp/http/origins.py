"""
Which pages a browser may call a gateway from (pure).

Two things protect a gateway on a private address from web pages elsewhere. A page of another origin says so in
``Sec-Fetch-Site`` or ``Origin``. A page whose own name was made to lead to the gateway's address (DNS rebinding) is of
the same origin, but has that name in ``Host``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

ANY = "*"
_LOCAL = "localhost"
# A name, or an address of IPv6 in brackets; the port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)", re.IGNORECASE)
_PORTS = {"http": "80", "https": "443"}


class Origins:
    """
    The hosts and origins whose requests are served.

    Args:
        hosts: Names that ``Host`` may have beside ``localhost``, those that end in ``.localhost``, and every IP
            address; without ports. ``*`` allows each.
        origins: Origins such as ``https://example.com`` whose pages may call although they are not of the same
            origin. ``*`` allows each.

    Raises:
        ValueError: One is malformed.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        if isinstance(hosts, str) or isinstance(origins, str):
            raise TypeError("allowed hosts and origins are lists, not one name")
        self._hosts = frozenset(ANY if host == ANY else _name(host) for host in hosts)
        self._origins = frozenset(ANY if origin == ANY else _origin(origin) for origin in origins)

    def allows_host(self, values: Sequence[str]) -> bool:
        """
        Return whether a request may be served by its ``Host``; without one it comes from no browser.

        Args:
            values: The values of all headers of that name.
        """
        if not values or ANY in self._hosts:
            return True
        host = _HOST.fullmatch(values[0].strip())
        if host is None or len(values) > 1:
            return False
        name = host[1].lower().rstrip(".")
        return name in self._hosts or name == _LOCAL or name.endswith(f".{_LOCAL}") or _is_address(name)

    def allows_origin(self, origins: Sequence[str], sites: Sequence[str], hosts: Sequence[str]) -> bool:
        """
        Return whether a request may be served by the page that it comes from, if it comes from one.

        Args:
            origins: The values of all headers ``Origin``.
            sites: Of all headers ``Sec-Fetch-Site``, which only the browser itself can set.
            hosts: Of all headers ``Host``.
        """
        if ANY in self._origins:
            return True
        if list(sites) in (["same-origin"], ["none"]):
            return True
        if not origins:
            return not sites
        try:
            origin = _origin(*origins)
        except (TypeError, ValueError):
            return False
        return origin in self._origins or (not sites and len(hosts) == 1 and _is_of(origin, hosts[0]))


def _is_of(origin: str, host: str) -> bool:
    """Whether an origin is that of a host; the scheme is unknown behind a proxy."""
    scheme = origin.partition(":")[0]
    try:
        return _origin(f"{scheme}://{host.strip()}") == origin
    except ValueError:
        return False


def _origin(text: str) -> str:
    """Return an origin in the one form in which origins are compared, with the port."""
    match = _ORIGIN.fullmatch(text)
    host = match and _HOST.fullmatch(match[2])
    if not match or not host:
        raise ValueError("an origin is given as https://example.com or http://example.com:8080, or as *")
    scheme = match[1].lower()
    return f"{scheme}://{host[1].lower().rstrip('.')}:{host[2] or _PORTS[scheme]}"


def _name(text: str) -> str:
    host = _HOST.fullmatch(text)
    if host is None or host[2] is not None:
        raise ValueError("a host is given by its name alone, such as example.com, without a port; or as *")
    return host[1].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
