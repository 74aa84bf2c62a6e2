"""The control API. The cockpit's own pages act through it as well, so there is one way to do a thing.

Endpoints are plain functions, so FastAPI runs them in its thread pool and a slow database holds up no event loop.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from slipway_control.access import Caller, CallerDep, Reader, SlipwayDep, actor, public
from slipway_control.acts import act

__all__ = ["router"]

router = APIRouter(prefix="/api")
Model = Annotated[str, Path(pattern="^[a-z][a-z0-9_]{0,62}$", description="a model of the fleet")]
_LIMIT = Query(default=100, ge=1, le=1000)


class Weights(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    champion: int = Field(ge=1, le=100)
    challenger: int = Field(default=0, ge=0, le=99)

    @model_validator(mode="after")
    def _sum_to_all(self) -> Weights:
        if self.champion + self.challenger != 100:
            raise ValueError("the weights must sum to 100")
        return self


class Split(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weights: Weights


class Retrain(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Literal["manual", "scheduled", "drift"] = "manual"
    dataset: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    traffic: bool = Field(default=False, description="train on the labelled traffic of the last window as well")


class Why(BaseModel):
    """Why it is done, for the ledger."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=500)


class Version(Why):
    """Which version: an MLflow version number; without it the obvious one."""

    version: str | None = Field(default=None, pattern="^[0-9]{1,9}$")


def needs_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send application/json")


def _answer(done: bool, body: dict[str, Any]) -> JSONResponse:
    return JSONResponse(body, status_code=200 if done else 202)


# --- reading ------------------------------------------------------------------------------------------------


@router.get("/models/info", tags=["read"], dependencies=[Depends(public)])
def models_info(slipway: SlipwayDep) -> dict[str, Any]:
    """Every model with its live version, slots, weights and rollout."""
    return slipway.models_info()


@router.get("/config", tags=["read"], dependencies=[Depends(public)])
def config(slipway: SlipwayDep) -> dict[str, Any]:
    """The traffic split of every model."""
    return slipway.traffic_config()


@router.get("/rollout/{model}", tags=["read"])
def rollout(model: Model, slipway: SlipwayDep, who: Reader) -> dict[str, Any]:
    """The running rollout, or the newest, with its checks and both slots' numbers."""
    return slipway.rollout_view(model)


@router.get("/decisions", tags=["read"])
def decisions(
    slipway: SlipwayDep,
    who: Reader,
    model: str | None = None,
    kind: Literal["data", "gate", "drift", "retrain"] | None = None,
    before: str | None = Query(default=None, description="ISO 8601; only older ones"),
    limit: int = _LIMIT,
) -> dict[str, Any]:
    """What data checks, gate, drift and retrain decided, with reasons and evidence, the newest first."""
    return {"decisions": slipway.decision_rows(model=model, kind=kind, before=before, limit=limit)}


@router.get("/ledger", tags=["read"])
def ledger(
    slipway: SlipwayDep,
    who: Reader,
    model: str | None = None,
    before: int | None = Query(default=None, description="a sequence number; only older rows"),
    limit: int = _LIMIT,
) -> dict[str, Any]:
    """What happened, the newest first."""
    return {"rows": slipway.ledger_rows(model=model, before=before, limit=limit)}


@router.get("/ledger/at", tags=["read"])
def ledger_at(slipway: SlipwayDep, who: Reader, model: str, at: str) -> dict[str, Any]:
    """What served a model at a time."""
    return slipway.served_at(model, at)


@router.get("/ledger/request/{request_id}", tags=["read"])
def ledger_request(request_id: str, slipway: SlipwayDep, who: Reader) -> dict[str, Any]:
    """What stands behind an answered request."""
    return slipway.behind_request(request_id)


@router.get("/actions", tags=["read"])
def actions(slipway: SlipwayDep, who: Reader, model: str | None = None, limit: int = _LIMIT) -> dict[str, Any]:
    """The audit: who asked for what, and how it went, the newest first."""
    return {"actions": slipway.recent_actions(model, limit)}


# --- acting -------------------------------------------------------------------------------------------------

_MAY_SPLIT = actor("traffic")
Trains = Annotated[Caller, actor("train")]
Releases = Annotated[Caller, actor("release")]
Splits = Annotated[Caller, _MAY_SPLIT]


# Who asks is looked at before what is asked.
@router.put("/config/{model}", tags=["act"], dependencies=[_MAY_SPLIT, Depends(needs_json)])
def set_split(model: Model, split: Split, slipway: SlipwayDep, who: Splits) -> dict[str, Any]:
    """Set a lasting A/B split."""
    weights = split.weights.model_dump()
    return slipway.noted(
        "split",
        model,
        {"weights": weights},
        lambda: slipway.set_split(model, weights, actor=who.name, reason="PUT /config"),
        actor=who.name,
        via=who.via,
    )


@router.post("/retrain/{model}", tags=["act"], status_code=202)
def retrain(model: Model, slipway: SlipwayDep, who: Trains, wish: Retrain | None = None) -> dict[str, Any]:
    """Start the training workflow."""
    wish = wish or Retrain()
    return slipway.noted(
        "retrain",
        model,
        wish.model_dump(),
        lambda: slipway.start_training(model, wish.reason, wish.dataset, actor=who.name, traffic=wish.traffic),
        actor=who.name,
        via=who.via,
    )


@router.post("/release/{model}", tags=["act"], status_code=202)
def release(model: Model, slipway: SlipwayDep, who: Releases, wish: Version | None = None) -> dict[str, Any]:
    """Start the release workflow of a version, by default the challenger's."""
    wish = wish or Version()
    return slipway.noted(
        "release",
        model,
        wish.model_dump(),
        lambda: slipway.start_release(model, wish.version, wish.reason or "release", actor=who.name),
        actor=who.name,
        via=who.via,
    )


def _on_rollout(name: str, default_reason: str) -> None:
    """One route for an action on the running rollout."""

    def endpoint(model: Model, slipway: SlipwayDep, who: Releases, wish: Why | None = None) -> JSONResponse:
        reason = (wish.reason if wish else None) or default_reason
        run = getattr(slipway, name)
        work = lambda: run(model, actor=who.name, reason=reason)  # noqa: E731
        return _answer(*act(slipway, who, name, model, {"reason": reason}, work))

    summaries = {
        "approve": "Agree to what the running rollout waits for.",
        "reject": "Refuse what the running rollout waits for, and give all traffic back.",
        "promote": "Make the running rollout's version live without waiting for its bake.",
        "abort": "End the running rollout and give all traffic back.",
    }
    responses: dict[int | str, dict[str, Any]] = {202: {"description": "under way; the rollout's page shows it"}}
    router.add_api_route(
        f"/{name}/{{model}}",
        endpoint,
        methods=["POST"],
        tags=["act"],
        name=name,
        operation_id=name,
        description=summaries[name],
        responses=responses,
        response_model=None,
    )


for _name in ("approve", "reject", "promote", "abort"):
    _on_rollout(_name, f"{_name} asked for by hand")


@router.post("/rollback/{model}", tags=["act"], response_model=None)
def rollback(model: Model, slipway: SlipwayDep, who: Releases, wish: Version | None = None) -> JSONResponse:
    """Bring a former version back, by default the one that was live before."""
    wish = wish or Version()
    reason = wish.reason or "rolled back by hand"
    work = lambda: slipway.roll_back(model, wish.version, actor=who.name, reason=reason)  # noqa: E731
    return _answer(*act(slipway, who, "rollback", model, {"version": wish.version, "reason": reason}, work))


@router.get("/whoami", tags=["read"])
def whoami(who: Reader) -> dict[str, Any]:
    """Who asks, and whether they may act."""
    return {"name": who.name, "via": who.via, "acts": who.acts(None, "release")}


def openapi_for(request: Request, slipway: SlipwayDep, who: CallerDep) -> dict[str, Any]:
    """The gateway's document for those who come through it, this API's own for everybody else."""
    if who is not None and who.via == "gateway":
        return slipway.openapi()
    return dict(request.app.openapi())
