"""Text from URLs and from the wire, as it may be shown in logs and errors (pure)."""

from __future__ import annotations

import re

# A URL of another shape may have a piece of a password anywhere: one with an unescaped "/" or "?" in it, for example.
_URL = re.compile(
    r"(?P<scheme>[a-z]+://)"
    r"(?:(?P<user>[^:@/?#]*)(?::[^/?#]*)?@)?"
    r"(?P<place>(?:\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]\s]*)(?::[0-9]{1,5})?(?:/[^@?#]*)?)"
    r"(?:\?[^@#]*)?"
)


def redact(url: str) -> str:
    """Give a URL, or several joined by ``;``, without passwords and queries; ``***`` alone where one is malformed."""
    shown = []
    for part in url.split(";"):
        match = _URL.fullmatch(part.strip())
        if match is None:
            return "***"
        scheme, user, place = match.group("scheme", "user", "place")
        shown.append(f"{scheme}{place}" if user is None else f"{scheme}{user}:***@{place}")
    return ";".join(shown)


def printable(text: str, limit: int = 200) -> str:
    """Give text from the wire as one harmless quoted line: escapes, and at most about ``limit`` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return ascii(cut)
