"""Who may do what: a person by Airflow's session, a program by a control key, and the gateway for its public routes.

Reading needs a viewer or a key's scope `read`; acting needs an operator or the action's scope. A session is only
believed from pages of this very origin, and an action by session needs the page's CSRF token as well, so no other site
can use the browser of somebody who is logged in.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request

from slipway.stack.gateway import GATEWAY_HEADER
from slipway.wiring import Wiring, wiring
from slipway_control.airflow_session import AirflowUser, user_of
from slipway_control.limits import RateLimit

__all__ = [
    "Caller",
    "CallerDep",
    "LoginNeededError",
    "Reader",
    "SlipwayDep",
    "actor",
    "csrf_token",
    "person_of",
    "public",
    "slipway",
]

CSRF_HEADER = "x-csrf-token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_DAY_SECONDS = 86_400
PERSON_PER_MINUTE = 600  # the playground predicts while a slider moves
limits = RateLimit()


class LoginNeededError(Exception):
    """Nobody is logged in, and a person asked for a page."""


@dataclass(frozen=True)
class Caller:
    """Who asks. `via` is session, token, key or gateway; `scopes` are those of a key."""

    name: str
    via: str
    scopes: frozenset[str] = frozenset()
    person: AirflowUser | None = None
    per_minute: int = PERSON_PER_MINUTE

    def sees(self, model: str | None = None) -> bool:
        return self.person.sees(model) if self.person else "read" in self.scopes

    def acts(self, model: str | None = None, scope: str | None = None) -> bool:
        """Whether an action on the model is allowed; `scope` is what a key needs for it."""
        return self.person.acts(model) if self.person else scope in self.scopes


def slipway() -> Wiring:
    """The wiring of this process."""
    return wiring()


SlipwayDep = Annotated[Wiring, Depends(slipway)]


async def person_of(request: Request) -> AirflowUser | None:
    """Airflow's user; a dependency of its own so that tests can log somebody in.

    A browser sends its cookies to every port of a host, so they come with requests to the gateway too: there they are
    nobody's, neither to act with nor to be refused for.

    Raises:
        LoginNeededError: a person's session has ended, and they ask for a page.
        HTTPException: 401 for a token that has expired, 403 for one that is none of Airflow's.
    """
    if request.headers.get(GATEWAY_HEADER):
        return None
    try:
        return await user_of(request)
    except HTTPException as error:
        if error.status_code == 401 and _asks_for_a_page(request):
            raise LoginNeededError from error
        raise


def _asks_for_a_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and "/api/" not in request.url.path


def _by_key(slipway: Wiring, key: str) -> Caller:
    found = slipway.key_of(key)
    if found is None:
        raise HTTPException(403, "the control key is wrong or was revoked")
    return Caller(found["name"], "key", frozenset(found["scopes"]), per_minute=found["per_minute"])


def _by_gateway(slipway: Wiring, token: str) -> Caller | None:
    wanted = slipway.settings.gateway_token
    return Caller("gateway", "gateway") if hmac.compare_digest(token.encode(), wanted.encode()) else None


def caller(
    request: Request, slipway: SlipwayDep, person: Annotated[AirflowUser | None, Depends(person_of)]
) -> Caller | None:
    """Who asks, or None for nobody.

    Raises:
        HTTPException: 403 for a wrong key, or for a session that another site tries to use.
    """
    if key := request.headers.get("x-api-key"):
        return _by_key(slipway, key)
    if person is not None:
        if person.by_cookie:
            _refuse_other_sites(request)
        return Caller(person.name, "session" if person.by_cookie else "token", person=person)
    if token := request.headers.get(GATEWAY_HEADER):
        return _by_gateway(slipway, token)
    return None


CallerDep = Annotated["Caller | None", Depends(caller)]


def _refuse_other_sites(request: Request) -> None:
    """A session counts on our own pages only, and where a person follows a link to one."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    followed = request.method in _SAFE and request.headers.get("sec-fetch-mode") == "navigate"
    embedded = request.headers.get("sec-fetch-dest") in ("iframe", "frame", "embed", "object")
    if site not in ("same-origin", "none") and not (followed and not embedded):
        raise HTTPException(403, "another site asks for this; open it from the cockpit")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "another site asks for this; open it from the cockpit")


def _csrf(slipway: Wiring, name: str, day: int) -> str:
    key = slipway.settings.secret("airflow_secret_key").encode()
    return hmac.new(key, f"csrf:{day}:{name}".encode(), sha256).hexdigest()


def csrf_token(slipway: Wiring, name: str) -> str:
    """What the pages of this person send with every action; good today and tomorrow (UTC)."""
    return _csrf(slipway, name, int(time.time() // _DAY_SECONDS))


def _needs_csrf(request: Request, slipway: Wiring, who: Caller) -> None:
    today = int(time.time() // _DAY_SECONDS)
    sent = request.headers.get(CSRF_HEADER, "").encode()
    if not any(hmac.compare_digest(sent, _csrf(slipway, who.name, day).encode()) for day in (today, today - 1)):
        raise HTTPException(403, "the page is too old; load it again")


def _nobody(detail: str = "log in to Airflow, or send a control key in x-api-key") -> HTTPException:
    return HTTPException(401, detail, {"www-authenticate": "ApiKey"})


def reader(request: Request, who: CallerDep) -> Caller:
    """Who may read; a person who asks for a page without a session is led to the login."""
    if who is None or who.via == "gateway":
        if _asks_for_a_page(request):
            raise LoginNeededError
        raise _nobody()
    model = request.path_params.get("model")
    if not who.sees(model):
        raise HTTPException(403, f"{who.name} may not see {model or 'the fleet'}")
    return who


Reader = Annotated[Caller, Depends(reader)]


def public(who: CallerDep) -> Caller:
    """Readers, and whoever comes through the gateway: what it shows to everybody."""
    if who is None:
        raise _nobody()
    if who.via != "gateway" and not who.sees():
        raise HTTPException(403, f"{who.name} may not see the fleet")
    return who


def actor(scope: str) -> Callable[..., Any]:
    """A dependency: who may do what needs this scope, with their rate limited."""

    def check(request: Request, who: CallerDep, slipway: SlipwayDep) -> Caller:
        if who is None or who.via == "gateway":
            raise _nobody("this needs an operator's session, or a control key in x-api-key")
        if who.via == "session":
            _needs_csrf(request, slipway, who)
        model = request.path_params.get("model")
        if not who.acts(model, scope):
            what = f"needs the scope {scope}" if who.via == "key" else "needs an operator"
            raise HTTPException(403, f"{who.name} may look but not do this: it {what}")
        wait_seconds = limits.take(f"{who.via}:{who.name}", who.per_minute)
        if wait_seconds:
            detail = f"{who.name} asks for more than {who.per_minute} actions a minute"
            raise HTTPException(429, detail, {"retry-after": str(ceil(wait_seconds))})
        return who

    return Depends(check)
