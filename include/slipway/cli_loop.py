"""Commands on models: run a workflow, predict, release, roll back, look at the ledger, send traffic.

Nothing heavy is imported before a command runs; `slipway --help` has to answer at once.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from slipway.jobs.simulate import Simulation
    from slipway.wiring import Wiring

__all__ = ["COMMANDS"]

_NEXT = """
the stack keeps running; three things to try next:
  .venv/bin/{slipway} models
  .venv/bin/{slipway} simulate {model} --rows 1000 --rate 100 --labels
  .venv/bin/{slipway} run {model}_drift
`make {down}` stops it."""


def _slipway() -> Wiring:
    from slipway.wiring import wiring

    return wiring()


def _person() -> str:
    """Who asks, for the ledger."""
    import getpass

    try:
        return f"{getpass.getuser()} (cli)"
    except (OSError, KeyError):  # a user without a name
        return "cli"


def _say(text: str) -> None:
    click.echo(text, err=True)


def _table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """A plain table that can be piped; empty cells are a dash."""
    cells = [[("-" if row.get(column) in (None, "") else str(row[column])) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells), 0) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@click.command()
@click.argument("dag")
@click.option("--conf", default="{}", help='the run\'s parameters as JSON, for example \'{"reason": "manual"}\'')
@click.option("--no-wait", is_flag=True, help="do not follow the run to its end")
def run(dag: str, conf: str, no_wait: bool) -> None:
    """Run an Airflow DAG, for example iris_train, and follow it to its end."""
    try:
        parameters = json.loads(conf)
    except ValueError as error:
        raise click.UsageError(f"--conf is not JSON: {error}") from error
    _slipway().run_dag(dag, parameters, wait=not no_wait, say=_say)


@click.command()
@click.argument("model")
@click.argument("body", metavar="JSON")
def predict(model: str, body: str) -> None:
    """Predict one row (a flat object) or many ({"rows": [...]}) through the gateway."""
    answer = _slipway().predict(model, body)
    click.echo(json.dumps(answer, indent=2))


@click.command()
@click.argument("model")
@click.option("--version", help="MLflow version; without it the challenger")
@click.option("--reason", default="released by hand", show_default=True)
def release(model: str, version: str | None, reason: str) -> None:
    """Package a registered version and roll it out, without Airflow."""
    package = _slipway().package(model, version)
    outcome = _slipway().roll_out(model, package["version"], actor=_person(), reason=reason, say=_say)
    click.echo(f"{model} version {outcome['version']} is live in slot {outcome['slot']}")


@click.command()
@click.argument("model")
@click.option("--reason", default="promoted by hand", show_default=True)
def promote(model: str, reason: str) -> None:
    """End the running rollout's bake now and promote; checks that failed still stop it."""
    outcome = _slipway().promote(model, actor=_person(), reason=reason)
    click.echo(f"{model} version {outcome['version']} is live in slot {outcome['slot']}")


@click.command()
@click.argument("model")
@click.option("--reason", default="aborted by hand", show_default=True)
def abort(model: str, reason: str) -> None:
    """Stop the running rollout and give all traffic back to the champion."""
    outcome = _slipway().abort(model, actor=_person(), reason=reason)
    click.echo(f"{model}: rollout {outcome['phase']}")


@click.command()
@click.argument("model")
@click.option("--reason", default="approved by hand", show_default=True)
def approve(model: str, reason: str) -> None:
    """Let the rollout go on that waits for a person."""
    outcome = _slipway().approve(model, actor=_person(), reason=reason)
    click.echo(f"{model} version {outcome['version']} approved in {outcome['phase']}; whoever drives it goes on")


@click.command()
@click.argument("model")
@click.option("--reason", default="rejected by hand", show_default=True)
def reject(model: str, reason: str) -> None:
    """End the rollout that waits for a person, and give all traffic back."""
    outcome = _slipway().reject(model, actor=_person(), reason=reason)
    click.echo(f"{model} version {outcome['version']}: rollout {outcome['phase']}")


@click.command()
@click.argument("model")
@click.option("--to", "version", help="one of the last versions; without it the one that was live before")
@click.option("--reason", default="rolled back by hand", show_default=True)
def rollback(model: str, version: str | None, reason: str) -> None:
    """Bring a former version back; needs only Postgres and the gateway."""
    outcome = _slipway().roll_back(model, version, actor=_person(), reason=reason)
    done = "was live already" if outcome["what"] == "nothing" else f"is live again, after {outcome['seconds']:.2f} s"
    click.echo(f"{model} version {outcome['to_version']} {done}")


@click.command()
def models() -> None:
    """Every model with its live version, slots and weights."""
    info = _slipway().models_info()["models"]
    rows = [
        {
            "model": entry["model"],
            "live": entry["live_version"],
            **{name: _slot_cell(entry["slots"].get(name)) for name in ("blue", "green")},
            "rollout": (entry.get("rollout") or {}).get("phase"),
        }
        for entry in info
    ]
    _table(rows, ["model", "live", "blue", "green", "rollout"])


def _slot_cell(slot: dict[str, Any] | None) -> str:
    if not slot or slot.get("version") is None:
        return "-"
    return f"v{slot['version']} {'running' if slot['running'] else 'stopped'} {slot['weight']}%"


@click.command()
@click.argument("model")
@click.option("--split", type=click.IntRange(0, 99), help="per cent for the challenger, a lasting A/B split")
@click.option("--reason", default="split by hand", show_default=True)
def traffic(model: str, split: int | None, reason: str) -> None:
    """Show where a model's traffic goes, each side's results and the running rollout, or set a lasting split."""
    if split is not None:
        weights = {"champion": 100 - split, "challenger": split}
        _slipway().set_split(model, weights, actor=_person(), reason=reason)
    click.echo(json.dumps(_slipway().traffic(model), indent=2, default=str))


@click.command()
@click.option("--model", help="only this model")
@click.option("--at", metavar="TIME", help="what was live at this time (ISO 8601)")
@click.option("--request", "request_id", metavar="ID", help="what stands behind an answer, by its x-request-id")
@click.option("--decisions", is_flag=True, help="gate, drift, retrain and data decisions instead")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="whole rows as JSON lines")
def ledger(
    model: str | None, at: str | None, request_id: str | None, decisions: bool, limit: int, as_json: bool
) -> None:
    """What went live, when and why; what served a model at a time; what stands behind a request.

    --decisions tells what gate, drift watch and circuit breaker decided and why; with --json their whole evidence.
    --request answers with the model version, data hash, bento, DAG run, gate evidence and person behind it.
    """
    if request_id is not None and (at is not None or decisions):
        raise click.UsageError("--request goes alone")
    if at is not None and model is None:
        raise click.UsageError("--at needs --model")
    if at is not None or request_id is not None:
        answer = _slipway().behind_request(request_id) if request_id else _slipway().served_at(str(model), str(at))
        click.echo(json.dumps(answer) if as_json else "\n".join(_lines(answer)))
        return
    if decisions:
        rows, columns = _slipway().decisions(model, limit), ["at", "model", "kind", "verdict", "reasons"]
    else:
        rows = _slipway().ledger(model, limit)
        columns = ["seq", "at", "model", "event", "version", "slot", "actor", "reason"]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, default=str))
    else:
        _table([_decision(row) for row in rows] if decisions else rows, columns)


def _decision(row: dict[str, Any]) -> dict[str, Any]:
    """One decision for the table: seconds are enough, and reasons are sentences."""
    return {**row, "at": str(row["at"])[:19] + "Z", "reasons": "; ".join(row["reasons"])}


def _lines(value: Any, indent: str = "") -> list[str]:
    """Nested facts as indented lines; empty ones are a dash."""
    if isinstance(value, dict) and value:
        lines = []
        for name, item in value.items():
            inner = _lines(item, f"{indent}  ")
            lines += [f"{indent}{name}: {inner[0].strip()}"] if len(inner) == 1 else [f"{indent}{name}:", *inner]
        return lines
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [line for item in value for line in _bullet(_lines(item, f"{indent}  "), indent)]
    return [f"{indent}{'-' if value in (None, '', [], {}) else value}"]


def _bullet(lines: list[str], indent: str) -> list[str]:
    return [f"{indent}- {lines[0].strip()}", *lines[1:]]


def _shifts(pairs: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise click.UsageError(f"--shift {pair}: write it like petal_length=+1.5")
    return found


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("model")
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(1))
@click.option(
    "--rate", default=100.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="per second"
)
@click.option("--shift", "shifts", multiple=True, metavar="FEATURE=+X", help="drift: add X to a feature; repeatable")
@click.option("--labels", is_flag=True, help="send the true labels afterwards")
@click.option("--seed", type=int, help="the same rows each time")
def simulate(model: str, rows: int, rate: float, shifts: tuple[str, ...], labels: bool, seed: int | None) -> None:
    """Send realistic traffic through the gateway, with drift and labels on demand."""
    wanted = _shifts(shifts)

    def progress(outcome: Simulation) -> None:
        _say(f"  {outcome.answered:,} of {rows:,} answered, {outcome.failed} failed")

    outcome = _slipway().simulate(
        model, rows=rows, rate=rate, shifts=wanted, labels=labels, seed=seed, progress=progress
    )
    click.echo(json.dumps(outcome.as_dict(), indent=2))
    if outcome.failed:
        sys.exit(1)


@click.command()
@click.argument("model")
@click.option("--port", default=3001, show_default=True)
def serve(model: str, port: int) -> None:
    """Serve the live bento of a model in the foreground with `bentoml serve`, beside the stack."""
    _slipway().serve(model, port)


@click.command()
@click.argument("model", default="iris")
def demo(model: str) -> None:
    """The whole loop for one model, from data to a prediction by the version that it released."""
    from slipway.cli_stack import up
    from slipway.settings import load_settings
    from slipway.stack.demo import run_demo

    # Containers are started from outside of them.
    contained = load_settings().runtime == "docker"
    if up.callback is not None and not contained:
        up.callback()
    run_demo(_slipway(), model, click.echo)
    typed = ("slipway --stack compose", "compose-down") if contained else ("slipway", "down")
    click.echo(_NEXT.format(model=model, slipway=typed[0], down=typed[1]))


@click.command()
def keeper() -> None:
    """The daemon that ships the prediction log, finishes abandoned rollouts and exports metrics."""
    from slipway.keeper import main

    main()


COMMANDS: tuple[click.Command, ...] = (
    run,
    predict,
    release,
    promote,
    abort,
    approve,
    reject,
    rollback,
    models,
    traffic,
    ledger,
    simulate,
    serve,
    demo,
    keeper,
)
