"""What every workflow shares: the fleet, the assets that connect the DAGs, retries, and how errors end a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset

from slipway.settings import load_settings
from slipway.spec import ModelSpec, load_fleet

__all__ = [
    "DEFAULTS",
    "START",
    "announced",
    "answer",
    "approval",
    "dataset_asset",
    "fail_if",
    "final_errors",
    "fleet",
    "skip_unless",
    "version_asset",
]

START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULTS: dict[str, Any] = {
    "owner": "slipway",
    "retries": 3,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
}


def fleet() -> list[ModelSpec]:
    """The models of this installation, in name order."""
    return list(load_fleet(load_settings().fleet_dir).values())


def dataset_asset(model: str) -> Asset:
    """Announced by `{model}_data`: a validated snapshot; extra holds `sha256` and `rows`."""
    return Asset(name=f"{model}_dataset", uri=f"slipway://{model}/dataset", group="slipway")


def version_asset(model: str) -> Asset:
    """Announced by `{model}_train`: a registered challenger; extra holds `version` and `reason`."""
    return Asset(name=f"{model}_version", uri=f"slipway://{model}/version", group="slipway")


def announced(events: Mapping[Any, Any] | None, key: str) -> str | None:
    """The value of `key` in the newest asset event that triggered this run; None when it was started by hand."""
    newest = [event for some in (events or {}).values() for event in some]
    return str(max(newest, key=lambda event: event.timestamp).extra[key]) if newest else None


def approval(model: str, timeout_seconds: float) -> Any:
    """Asks a person about the rollout that `until_asked` brought to its question; no answer in time is a no."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    reached = "(ti.xcom_pull(task_ids='until_asked', key='reached') or {})"
    return HITLOperator(
        task_id="approve",
        subject=f"{model}: let version {{{{ {reached}.get('version') }}}} go on?",
        body=f"It is in phase **{{{{ {reached}.get('phase') }}}}** beside version "
        f"{{{{ {reached}.get('previous_version') or 'none' }}}}.\n\n{{{{ {reached}.get('checks') }}}}",
        options=["Approve", "Reject"],
        defaults="Reject",
        response_timeout=timedelta(seconds=timeout_seconds),
    )


def answer(ti: Any) -> dict[str, Any] | None:
    """What a person answered in `approve`, as `answer_approval` takes it; None when nobody was asked."""
    given, reached = ti.xcom_pull(task_ids="approve"), ti.xcom_pull(task_ids="until_asked", key="reached")
    if not given or not reached or not reached["asked"]:  # a cleared run may keep an answer of before
        return None
    person = given.get("responded_by_user") or {}
    return {
        "rollout_id": reached["rollout"],
        "asked_at": reached.get("asked_at", ""),  # a run of a former release has none
        "approved": given["chosen_options"] == ["Approve"],
        "actor": person.get("name") or person.get("id") or "airflow",
        "reason": "answered in Airflow" if person else "nobody answered in time",
    }


@contextmanager
def final_errors() -> Iterator[None]:
    """Ends a task without retries where trying again cannot help: bad data, bad spec, a refused or failed rollout."""
    from airflow.sdk.exceptions import AirflowFailException

    from slipway.errors import ArtefactError, DataError, NotFoundError, RolloutError, SpecError

    try:
        yield
    except (ArtefactError, DataError, NotFoundError, RolloutError, SpecError) as error:
        raise AirflowFailException(str(error)) from error


def skip_unless(condition: bool, why: str) -> None:
    """Skips this task and what follows, with the reason in the log."""
    from airflow.sdk.exceptions import AirflowSkipException

    if not condition:
        raise AirflowSkipException(why)


def fail_if(condition: bool, why: str) -> None:
    """Ends this task in red, without retries."""
    from airflow.sdk.exceptions import AirflowFailException

    if condition:
        raise AirflowFailException(why)
