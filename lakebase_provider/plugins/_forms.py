"""Forms that only this page can have made: a mark in each, that no page of somebody else knows.

Airflow's own cookie is sent with what another site makes a browser post from the same domain. So there is a
second one, which a browser sends from this site alone, and each form holds a digest of it, of the user and of
what the form is for. What the browser says of where a request comes from is looked at, too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow.configuration import conf
from fastapi import HTTPException, Request, Response

COOKIE = "_lakebase_form"
MARK = "mark"
#: Bytes of a form.
_LONGEST = 4096


class Seal:
    """Makes the marks of the forms of one answer.

    Args:
        request: What is answered.
        user: Who asks.
    """

    def __init__(self, request: Request, user: Any) -> None:
        self._known = request.cookies.get(COOKIE)
        self._key = self._known or secrets.token_urlsafe(32)
        self._user = str(user.get_id())
        self._path = request.scope.get("root_path", "") or "/"
        self._secure = request.url.scheme == "https" or _base().scheme == "https"

    def mark(self, *purpose: str) -> str:
        """The mark of a form.

        Args:
            purpose: What it does, and to what.
        """
        text = "\n".join((self._user, *purpose))
        return hmac.new(self._key.encode(), text.encode(), hashlib.sha256).hexdigest()

    def attach(self, response: Response) -> None:
        """Give the browser the cookie, if it has none."""
        if self._known is None:
            response.set_cookie(
                COOKIE, self._key, path=self._path, secure=self._secure, httponly=True, samesite="strict"
            )

    def require(self, form: dict[str, str], *purpose: str) -> None:
        """Refuse a form that was not made by this page for this user.

        Raises:
            HTTPException: 403.
        """
        given = form.get(MARK, "")
        if self._known is None or not hmac.compare_digest(given.encode(), self.mark(*purpose).encode()):
            raise HTTPException(403, "This form is not of this page, or is too old. Load the page again.")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that was posted from this site.

    Raises:
        HTTPException: 403 if it comes from elsewhere; 413 if it is too long; 415 if it is no form.
    """
    _require_own_origin(request)
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise HTTPException(415, "This is no form.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST:
            raise HTTPException(413, "The form is too long.")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[-1] for name, values in fields.items()}


def _require_own_origin(request: Request) -> None:
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    else:
        # A browser that does not say so, or http; what is no browser names no origin, and has no cookie.
        own = origin is None or urlsplit(origin).netloc in (request.headers.get("host"), _base().netloc)
    if not own:
        raise HTTPException(403, "This request comes from another site.")


def _base() -> Any:
    return urlsplit(conf.get("api", "base_url", fallback="") or "")
