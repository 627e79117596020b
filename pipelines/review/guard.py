"""The guard: what every request must bring before any route sees it, and what every answer says.

It refuses by default. A route that is added later is guarded without knowing of it.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from threading import Semaphore
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.review.sessions import Attempts, Session, Sessions
from pipelines.review.users import ADMIN, User, Users

#: The ways in, and the style of the page where one signs in: they need no session.
ENTER, SIGN_IN, STYLE = "/enter", "/sign-in", "/style.css"
OPEN = frozenset({ENTER, SIGN_IN, STYLE})
#: Bytes of a form, and fields in it.
BODY, FIELDS = 2**20, 20_000
#: Methods that change nothing.
SAFE = frozenset({"GET", "HEAD"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Guard:
    """Who may come in.

    Parameters
    ----------
    port : int
        Of the server; it names the cookie, since a browser shares cookies among ports.
    users : Users or None
        None where one person is at this machine, and comes in with the token.
    names : frozenset of str
        Names of hosts by which browsers may call; addresses and ``localhost`` always may.
        Another name is that of a page which plays this server to a browser (DNS rebinding).
    secure : bool
        Whether browsers come by HTTPS.
    who : str
        The name under which the person at this machine rules.
    token : str
        What the printed address holds.
    """

    port: int
    users: Users | None = None
    names: frozenset[str] = frozenset()
    secure: bool = False
    who: str = "you"
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    sessions: Sessions = field(default_factory=Sessions, repr=False)
    attempts: Attempts = field(default_factory=Attempts, repr=False)
    #: A hash takes 64 MiB by design; strangers must not make many at once.
    hashing: Semaphore = field(default_factory=lambda: Semaphore(2), repr=False)

    @property
    def cookie(self) -> str:
        """The name of the cookie."""
        return f"{'__Host-' if self.secure else ''}sanitize-review-{self.port}"

    def enter(self, token: str) -> User | None:
        """The person at this machine, if the token is right."""
        right = hmac.compare_digest(self.token.encode(), token.encode())
        return User(self.who, ADMIN) if right and self.users is None else None

    def welcome(self, user: User, response: Response) -> Response:
        """Begin a session with an answer."""
        response.set_cookie(
            self.cookie,
            self.sessions.open(user),
            httponly=True,
            samesite="strict",
            secure=self.secure,
            path="/",
        )
        return response

    def secret(self, headers: Headers) -> str:
        """What the cookie of a request holds."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def knows(self, host: str) -> bool:
        """Whether a browser may call this server by a name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        known = {"localhost", *(one.lower() for one in self.names)}
        return name in known or _is_address(name)


@dataclass(frozen=True)
class Guarded:
    """An application behind its guard.

    Parameters
    ----------
    app : ASGI application
        Finds the session in ``request.state.session``, and a form that was meant in
        ``request.state.form``.
    guard : Guard
    """

    app: ASGIApp
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No route speaks WebSocket.
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = await self._refusal(scope, receive)
        await (refusal or self.app)(scope, receive, sealed)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        if not self.guard.knows(headers.get("host", "")):
            return _no(421, "This server is not called so. Name it with --name.")
        state = scope.setdefault("state", {})
        session = state["session"] = self.guard.sessions.find(self.guard.secret(headers))
        if session is None and path not in OPEN:
            return self._stranger(method, headers)
        return None if method in SAFE else await self._change(scope, receive, session)

    async def _change(
        self, scope: Scope, receive: Receive, session: Session | None
    ) -> Response | None:
        """What speaks against a request that would change something."""
        headers = Headers(scope=scope)
        if scope["method"] != "POST":
            return _no(405, "This server takes GET and POST.")
        if not _is_own(headers):
            return _no(403, "This form comes from another site.")
        form = await _form(headers, receive)
        if form is None:
            return _no(413, "This form is too large, or no form.")
        scope["state"]["form"] = form
        meant = _is_meant(session, scope["path"], form)
        return None if meant else _no(403, "This form is out of date.")

    def _stranger(self, method: str, headers: Headers) -> Response:
        page = "text/html" in headers.get("accept", "")
        if self.guard.users is not None and method in SAFE and page:
            return RedirectResponse(SIGN_IN, 303)
        return _no(401, "Open the address that 'sanitize review' has printed.")


def _is_meant(session: Session | None, path: str, form: Mapping[str, list[str]]) -> bool:
    # A form to sign in changes nothing for others; the cookie of another site's is not sent.
    if session is None:
        return path == SIGN_IN
    return session.is_meant((form.get("csrf") or [""])[0])


def _is_own(headers: Headers) -> bool:
    """Whether a form comes from a page of this server, as far as the browser says."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    if origin is None:
        return site in {"same-origin", "none"}
    return site == "same-origin" and urlsplit(origin).netloc == headers.get("host", "")


async def _form(headers: Headers, receive: Receive) -> dict[str, list[str]] | None:
    """Read a form, or None where it is none or too large."""
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > BODY:
            return None
        if not message.get("more_body"):
            break
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        return None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _no(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
