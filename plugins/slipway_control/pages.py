"""The pages: Fleet, Model, Rollout, Playground, Ledger and a report's frame.

Each is rendered whole on the server. A page asks for its own `<main>` again every few seconds (header `x-slipway-part`)
and is answered 304 while nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from slipway.errors import NotFoundError, SlipwayError
from slipway_control import views
from slipway_control.access import Caller, Reader, SlipwayDep, csrf_token, reader
from slipway_control.rendering import render

__all__ = ["READS", "router"]

router = APIRouter(include_in_schema=False)
READS = [Depends(reader)]
_IDLE_MS, _BUSY_MS = 5000, 2000
_PAGE_ROWS = 100


def _page(
    request: Request,
    slipway: SlipwayDep,
    who: Caller,
    name: str,
    title: str,
    view: Mapping[str, Any],
    *,
    model: str | None = None,
    poll_ms: int = _IDLE_MS,
    status: int = 200,
) -> Response:
    part = request.headers.get("x-slipway-part") == "1"
    base = request.scope.get("root_path", "").rstrip("/")
    context = {
        "view": view,
        "title": title,
        "page": name,
        "model": model,
        "base": base,
        "airflow": base.removesuffix("/slipway"),
        "mlflow": slipway.settings.mlflow_uri,
        "gateway": slipway.settings.gateway_uri,
        "who": who,
        "acts": who.acts(model, "release"),
        "csrf": csrf_token(slipway, who.name) if who.via == "session" else "",
        "poll_ms": poll_ms,
        "part": part,
    }
    html = render(f"{name}.html", context)
    tag = f'W/"{sha256(html.encode()).hexdigest()[:20]}"'
    headers = {"etag": tag, "vary": "x-slipway-part"}
    if part and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(html, status_code=status, headers=headers)


@router.get("/")
def root(request: Request, who: Reader) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '').rstrip('/')}/fleet", status_code=303)


@router.get("/fleet")
def fleet(request: Request, slipway: SlipwayDep, who: Reader) -> Response:
    """Every model at a glance, the one that needs somebody first."""
    return _page(request, slipway, who, "fleet", "Fleet", views.fleet(slipway.fleet_facts()))


@router.get("/model/{model}")
def model_page(model: str, request: Request, slipway: SlipwayDep, who: Reader) -> Response:
    """One model: what is live and why."""
    view = views.model(slipway.model_facts(model), slipway.known_model(model))
    return _page(request, slipway, who, "model", model, view, model=model)


@router.get("/rollout/{model}")
def rollout_page(
    model: str,
    request: Request,
    slipway: SlipwayDep,
    who: Reader,
    shown: str | None = Query(default=None, alias="id", pattern="^[0-9a-f-]{8,40}$"),
) -> Response:
    """The running rollout, live."""
    view = views.rollout(slipway.rollout_view(model, shown))
    busy = _BUSY_MS if view["running"] else _IDLE_MS
    return _page(request, slipway, who, "rollout", f"{model}: rollout", view, model=model, poll_ms=busy)


@router.get("/playground/{model}")
def playground(model: str, request: Request, slipway: SlipwayDep, who: Reader) -> Response:
    """Fields of the model, and what the live version answers."""
    spec = slipway.known_model(model)
    if spec is None:
        raise NotFoundError(f"{model} has no fleet file any more, so its fields are not known")
    live = slipway.cockpit.went_live([model]).get(model)
    view = views.playground(spec, dict(live) if live else None)
    return _page(request, slipway, who, "playground", f"{model}: playground", view, model=model, poll_ms=0)


@router.get("/ledger")
def ledger(
    request: Request,
    slipway: SlipwayDep,
    who: Reader,
    model: str = "",
    events: str = Query(default="", pattern="^[a-z_]*$"),
    before: str = Query(default="", pattern="^[0-9]{0,18}$"),
    at: str = "",
    request_id: str = "",
) -> Response:
    """What happened; what was live at a time; what stands behind a request."""
    found: dict[str, Any] = {"answer": None, "error": None}
    try:
        if request_id:
            found["answer"] = views.behind(slipway.behind_request(request_id.strip()))
        elif at and model:
            found["answer"] = views.served(slipway.served_at(model, at))
        elif at:
            found["error"] = "choose a model to ask what was live then"
    except SlipwayError as error:
        found["error"] = str(error)
    rows = slipway.ledger_rows(
        model=model or None,
        events=views.EVENT_CHOICES.get(events),
        before=int(before) if before else None,
        limit=_PAGE_ROWS + 1,
    )
    asked = {"model": model, "events": events, "before": before, "at": at, "request_id": request_id}
    names = sorted(slipway.specs()[0])
    view = views.ledger(rows, _PAGE_ROWS, asked, names, slipway.ledger_summary()) | found
    return _page(request, slipway, who, "ledger", "Ledger", view, poll_ms=0 if before or at or request_id else _IDLE_MS)


@router.get("/report/{model}/{run}/{name}")
def report(model: str, run: str, name: str, request: Request, slipway: SlipwayDep, who: Reader) -> Response:
    """A report of the lake in a frame that is shut off from the session."""
    slipway.report(model, run, name)  # so that a missing one is said on a page of ours
    view = {"run": run, "name": name, "content": f"report-content/{model}/{run}/{name}"}
    return _page(request, slipway, who, "report", f"{model}: {name}", view, model=model, poll_ms=0)
