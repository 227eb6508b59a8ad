"""What HTTP headers say about a body, and what of an HTTP response is logged (pure)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence

from ..wire.display import printable

# https://www.rfc-editor.org/rfc/rfc9110#name-tokens
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Sections 5.6.6 and 8.3.1. What has no value, or nothing between two semicolons, is let pass.
_PARAMETER = rf"({TOKEN})(?:=({TOKEN}|\"(?:[^\"\\]|\\.)*\"))?"
_MEDIA_TYPE = re.compile(rf"({TOKEN}/{TOKEN})[ \t]*((?:;[ \t]*(?:{_PARAMETER}[ \t]*)?)*)")
_PARAMETERS = re.compile(rf";[ \t]*{_PARAMETER}")
_JSON = ("application/json", "application/json-rpc")
_UTF_8 = ("utf-8", "utf8")

_SHORT, _LONG = 100, 200
_SHORTEST_SECRET = 6
# More than is shown, so that no URL is cut before its "@".
_BEGIN = 4096
# A user and a password in a URL.
_USERINFO = re.compile(r"//[^/?#@\s]*@")
_LOGGED = ("Content-Type", "Content-Encoding", "Content-Length", "Location")


def is_json(content_type: Sequence[str]) -> bool:
    """
    Return whether a body is declared as JSON in UTF-8. Parameters other than ``charset`` do not matter.

    Args:
        content_type: The values of all headers of that name; two make none.
    """
    media_type = _MEDIA_TYPE.fullmatch(",".join(content_type).strip())
    if media_type is None or media_type[1].lower() not in _JSON:
        return False
    parameters = ((name.lower(), value.strip('"').lower()) for name, value in _PARAMETERS.findall(media_type[2]))
    return all(value in _UTF_8 for name, value in parameters if name == "charset")


def content_coding(content_encoding: Sequence[str]) -> str | None:
    """
    Return what a body is encoded with, such as ``gzip``, as one word or several; None: it is as it is.

    Args:
        content_encoding: The values of all headers of that name.
    """
    words = [word.strip().lower() for word in ",".join(content_encoding).split(",")]
    codings = [word for word in words if word not in ("", "identity")]
    return printable(", ".join(codings), _SHORT) if codings else None


def described(status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> str:
    """
    Return what to log of an HTTP response: no credentials of URLs in it, and all in one line.

    Args:
        secrets: What is not logged either: an error page may have the headers of the request.
    """
    names = [name for name in _LOGGED if name in headers]
    shown = "".join(f"{name} {printable(_without_secrets(name, headers[name], secrets), _SHORT)}, " for name in names)
    begin = _without_secrets("", body[:_BEGIN].decode("utf-8", "backslashreplace"), secrets)
    return f"HTTP status {status}, {shown}{len(body)} bytes: {printable(begin, _LONG)}"


def secrets_of(headers: Mapping[str, str], user: str | None, password: str | None) -> tuple[str, ...]:
    """
    Return what must not be logged of a request: the words of its headers, and the credentials of its URL.

    Words of a few characters are left out: they are in any text, and no secrets.
    """
    words = {word for value in headers.values() for word in re.split(r"[\s,;=]+", value)} | {password or ""}
    if user is not None or password is not None:
        words.add(base64.b64encode(f"{user or ''}:{password or ''}".encode()).decode())
    return tuple(sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len, reverse=True))


def _without_secrets(name: str, text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    if name == "Location":
        path, question, _ = text.partition("?")
        text = f"{path}{question}..." if question else path
    return _USERINFO.sub("//***@", text)
