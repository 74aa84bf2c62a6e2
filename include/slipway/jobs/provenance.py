"""The ledger's two questions: what served a model at a time, and what stands behind a request.

Both are answered from what is never rewritten: the ledger's rows, which hold a copy of each promotion's proof, and the
logged request itself. Neither Airflow nor MLflow has to be up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from slipway.core.history import rollout_behind, served
from slipway.errors import NotFoundError

if TYPE_CHECKING:
    from slipway.core.rollout_record import Rollout
    from slipway.jobs.parts import Ledger, ReleaseStore
    from slipway.ports import LedgerEntry

__all__ = ["RequestLog", "behind_request", "served_at"]


class RequestLog(Protocol):
    """Finds a request's answers: `slipway.adapters.log_search.LogSearch`."""

    def find(self, request_id: str) -> Sequence[Mapping[str, Any]]: ...


def served_at(ledger: Ledger, model: str, at: datetime) -> dict[str, Any]:
    """What served the model at that time: the live version with its proof, and every slot that had traffic.

    Raises:
        NotFoundError: nothing had traffic then.
    """
    rows = ledger.until(model, at)
    slots, live = served(rows), ledger.live_at(model, at)
    if live is None and not slots:
        raise NotFoundError(f"no version of {model} was live at {at.isoformat()}; `slipway ledger --model {model}`")
    answer: dict[str, Any] = {"model": model, "at": at, "version": None, "slot": None, "since": None, "slots": slots}
    if live is not None:
        answer |= {"version": live.version, "slot": live.slot, "since": live.at, "seq": live.seq}
        answer |= {"actor": live.actor, "reason": live.reason, **_proof(live.detail)}
    return answer


def behind_request(request_id: str, log: RequestLog, ledger: Ledger, store: ReleaseStore) -> dict[str, Any]:
    """Which model version, data, bento, DAG run, gate evidence and person stand behind an answered request.

    Raises:
        DataError: the id is no UUID.
        NotFoundError: no answer with this id was logged.
    """
    answers = log.find(request_id)
    if not answers:
        raise NotFoundError(f"no answered request {request_id} is logged; refused requests never are")
    # A client may give one id to several requests; the shadow's answer to a request was never given to anybody.
    shown = sorted(answers, key=lambda one: (bool(one["shadow"]), one["at"]))
    return {
        "request_id": request_id.lower(),
        "answers": [{**one, **_behind(one, ledger, store)} for one in shown],
    }


def _behind(answer: Mapping[str, Any], ledger: Ledger, store: ReleaseStore) -> dict[str, Any]:
    model, version = str(answer["model"]), str(answer["version"])
    rollout_id = rollout_behind(ledger.until(model, answer["at"]), version)
    try:
        package = store.package(model, version)
    except NotFoundError:
        return {"rollout": None, "note": f"version {version} was never released here"}
    proof = _proof(
        {
            "bento_tag": package.bento_tag,
            "digest": package.digest,
            "dataset_sha256": package.dataset_sha256,
            "code_commit": package.code_commit,
            "evidence": package.evidence,
        }
    )
    if rollout_id is None:
        return {**proof, "rollout": None}
    events = ledger.of_rollout(rollout_id)
    promoted = next((row for row in events if row.event == "live"), None)
    if promoted is not None:  # the ledger's own copy counts: a package may have been built again since
        proof = _proof(promoted.detail)
    return {**proof, "rollout": _rollout(store.rollout(rollout_id), events)}


def _proof(detail: Mapping[str, Any]) -> dict[str, Any]:
    evidence = dict(detail.get("evidence") or {})
    return {
        "dataset_sha256": detail.get("dataset_sha256"),
        "bento_tag": detail.get("bento_tag"),
        "bento_digest": detail.get("digest"),
        "code_commit": detail.get("code_commit"),
        "dag_run": detail.get("dag_run"),
        "training_run": evidence.get("run_id"),
        "gate": evidence,
    }


def _rollout(rollout: Rollout, events: Sequence[LedgerEntry]) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "kind": rollout.kind,
        "phase": str(rollout.phase),
        "dag_run": rollout.dag_run,
        "person": rollout.actor,
        "reason": rollout.reason,
        "events": [
            {"seq": row.seq, "at": row.at, "event": row.event, "actor": row.actor, "reason": row.reason}
            for row in events
        ],
    }
