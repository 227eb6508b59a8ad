"""Make text from URLs and from the wire safe for logs and errors (pure)."""

from __future__ import annotations

import re

# In a URL that does not match, a part of the password may be anywhere, as after an unescaped "/" or "?" in it.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+://)"
    r"(?:(?P<user>[^:@/?#]*)(?::[^/?#]*)?@)?"
    r"(?P<place>(?:\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~%-]+)?\]|[^:@/?#\[\]\s]*)(?::[0-9]{1,5})?(?:/[^@?#]*)?)"
    r"(?:\?[^@#]*)?"
)


def redact(url: str) -> str:
    """Return a URL, or several joined by ``;``, without passwords and queries; only ``***`` if one is malformed."""
    shown = []
    for part in url.split(";"):
        match = _URL.fullmatch(part.strip())
        if match is None:
            return "***"
        scheme, user, place = match.group("scheme", "user", "place")
        shown.append(f"{scheme}{place}" if user is None else f"{scheme}{user}:***@{place}")
    return ";".join(shown)


def printable(text: str, limit: int = 200) -> str:
    """Return text from the wire as one quoted line of ASCII, cut after ``limit`` characters of the text."""
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return ascii(cut)


def sender(user: str | None) -> str:
    """Return how logs and errors name the sender of a message, given its ``user_id``."""
    return "a sender without a user_id" if not user else f"user {printable(user)}"
