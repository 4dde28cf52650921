"""Who may ask. Pure: what a request's headers say, in; a refusal, or nothing, out.

With a token nothing else is looked at. Without one, a request is accepted where the server is bound to loopback alone and
no token is required; but then it could come from a page in the user's browser that belongs to somebody else. So its Host
has to be ours (a foreign name that was pointed at 127.0.0.1 is not), and where a browser says which site it comes from,
that has to be the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from taskyard.errors import Forbidden, Unauthorized

#: Answered to anyone.
OPEN_PATHS = frozenset({"/health", "/ready"})
_OUR_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_FOREIGN_SITES = frozenset({"cross-site", "same-site"})


def presented_token(headers: Mapping[str, str]) -> str | None:
    """The bearer token of a request; None where there is none. Another scheme counts as a token that is not valid."""
    scheme, _, token = headers.get("authorization", "bearer").strip().partition(" ")
    if scheme.lower() != "bearer":
        return ""
    return token.strip() or None


def check_token(accepted: bool) -> None:
    """``Unauthorized``."""
    if not accepted:
        raise Unauthorized("the token is not valid here, or not any more: 'taskyard token show --reveal' prints it")


def check_without_token(headers: Mapping[str, str], tokenless: bool, allowed_hosts: Collection[str]) -> None:
    """``Unauthorized``, ``Forbidden``. ``tokenless``: bound to loopback alone, and no token is required."""
    if not tokenless:
        raise Unauthorized(
            "a token is needed: send the header 'Authorization: Bearer TOKEN' ('taskyard token show --reveal' prints it)"
        )
    host = headers.get("host", "")
    name = _name(host)
    if name not in _OUR_NAMES and name not in allowed_hosts and host not in allowed_hosts:
        raise Forbidden(f"the Host {host!r} is not ours: use localhost, send a token, or add it to the allowed hosts")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise Forbidden(f"requests from pages of {origin!r} need a token")
    if headers.get("sec-fetch-site", "").lower() in _FOREIGN_SITES:
        raise Forbidden("requests from pages of another site need a token")


def _name(host: str) -> str:
    """``host[:port]`` without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
