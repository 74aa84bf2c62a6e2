"""What was found: acceptance ratios, a table, a file and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Demand", "demands", "draw", "table", "write"]

Found = Mapping[str, Any]
# Slipway's requests per second over the other's, at least.
_FASTER_THAN = {
    "fastapi_sklearn": 60,
    "fastapi_onnx": 2,
    "bentoml_onnx": 9,
    "litserve_onnx": 9,
    "mlflow_serve": 120,
    "mlserver": 55,
    "uvicorn_bare": 0.4,
}


@dataclass(frozen=True)
class Demand:
    """One demand on the figures of a run."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def demands(found: Found) -> list[Demand]:
    """Every demand whose figures the run has."""
    result: list[Demand] = []

    def demand(name: str, bound: float, at_least: bool, value: Callable[[], float | None]) -> None:
        try:
            number = value()
        except KeyError:
            return
        result.append(Demand(name, float("inf") if number is None else number, bound, at_least))

    serving, batches = found.get("serving", {}), found.get("batches", {})
    for other, factor in _FASTER_THAN.items():
        demand(f"rps / {other}", factor, True, lambda o=other: serving["slipway"]["rps"] / serving[o]["rps"])
    gateway = found.get("gateway", {})
    demand("Envoy adds at p50, 1 connection (ms)", 0.15, False,
           lambda: gateway["envoy_1"]["p50_ms"] - gateway["direct_1"]["p50_ms"])  # fmt: skip
    demand("rps through Envoy / direct, same cores", 0.55, True,
           lambda: gateway["envoy_64"]["rps"] / gateway["direct_64"]["rps"])  # fmt: skip
    half = found.get("half_saturation", {})
    demand("half saturation p99 (ms)", 2, False, lambda: half["p99_ms"])
    demand("half saturation p99.9 (ms)", 15, False, lambda: half["p999_ms"])
    largest = batches.get("10000", {})
    demand("10,000 rows: rows/s / fastapi_sklearn", 2, True,
           lambda: largest["slipway"]["rps"] / largest["fastapi_sklearn"]["rps"])  # fmt: skip
    demand("10,000 rows: p50 (ms)", 150, False, lambda: largest["slipway"]["p50_ms"])
    demand("ready (s)", 4, False, lambda: serving["slipway"]["ready_s"])
    demand("memory, parent and worker (MB PSS)", 200, False, lambda: serving["slipway"]["pss_mb"])
    overload = found.get("overload", {})
    demand("overload: answers other than 200 and 429, errors", 0, False, lambda: _strange(overload["during"]))
    demand("overload: memory over before", 2, False, lambda: overload["pss_max_mb"] / overload["pss_before_mb"])
    demand("overload: back to normal after (s)", 5, False, lambda: overload["recovery_s"])
    return result


def _strange(during: Found) -> float:
    return during["errors"] + sum(n for status, n in during["statuses"].items() if status not in ("200", "429"))


def table(found: Found) -> str:
    """All figures as text."""
    lines = [_HEAD.format("1 row", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "PSS MB", "ready s")]
    for name, one in found.get("serving", {}).items():
        lines.append(_line(name, one) + f"{one['pss_mb']:>9.0f}{one['ready_s']:>9.2f}")
    gateway = {name: one for name, one in found.get("gateway", {}).items() if isinstance(one, dict)}
    if gateway:
        lines += ["", _HEAD.format("all on both cores", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "", "")]
        lines += [_line(name.replace("_", ", "), one) for name, one in gateway.items()]
    for size, results in found.get("batches", {}).items():
        lines.append("")
        lines.append(_HEAD.format(f"{int(size):,} rows", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "rows/s", ""))
        lines += [_line(name, one) + f"{one['rows_per_s']:>9,.0f}" for name, one in results.items()]
    for name, one in found.get("other_models", {}).items():
        lines.append("")
        lines.append(_HEAD.format(name, "requests/s", "p50 ms", "p99 ms", "p99.9 ms", one["format"], ""))
        for server, label in (("slipway", "slipway"), ("fastapi_sklearn", "fastapi")):
            lines += [_line(f"{label}, {size} row(s)", one[f"{server}_{size}"]) for size in (1, 100)]
    if "half_saturation" in found:
        lines += ["", _line("half saturation", found["half_saturation"])]
    if "overload" in found:
        overload = found["overload"]
        lines += [_line("overload: before", overload["before"]), _line("overload: during", overload["during"])]
        lines += [_line("overload: after", overload["after"]), f"  answers {overload['during']['statuses']}, "
                  f"PSS {overload['pss_before_mb']:.0f} -> at most {overload['pss_max_mb']:.0f} MB"]  # fmt: skip
    lines.append("")
    for one in demands(found):
        sign = ">=" if one.at_least else "<="
        lines.append(f"{'ok  ' if one.met else 'MISS'} {one.name:<52}{one.value:>10.2f}  {sign} {one.bound:g}")
    return "\n".join(lines)


_HEAD = "{:<18}{:>12}{:>10}{:>10}{:>10}{:>9}{:>9}"


def _line(name: str, one: Found) -> str:
    return f"{name:<18}{one['rps']:>12,.0f}{one['p50_ms']:>10.3f}{one['p99_ms']:>10.3f}{one['p999_ms']:>10.3f}"


def write(found: Found, path: Path) -> None:
    """Everything as JSON, replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checks = [{**asdict(one), "met": one.met} for one in demands(found)]
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({**found, "demands": checks}, indent=1))
    aside.replace(path)


def draw(found: Found, path: Path) -> None:
    """Requests per second and p99 of single rows, as a PNG; both axes are logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    serving = sorted(found["serving"].items(), key=lambda item: item[1]["rps"])
    names = [name for name, _ in serving]
    colours = ["#1f6feb" if name.startswith("slipway") else "#8b949e" for name in names]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, key, title in ((left, "rps", "requests per second"), (right, "p99_ms", "p99, ms")):
        values = [one[key] for _, one in serving]
        axis.barh(names, values, color=colours)
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 2, max(values) * 4)
        axis.set_title(title, fontsize=11)
        for position, value in enumerate(values):
            axis.text(
                value * 1.08, position, f"{value:,.0f}" if value >= 10 else f"{value:.2g}", va="center", fontsize=9
            )
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    subject = f"one row, iris forest of 100 trees, one worker, {found['connections']} connections"
    figure.suptitle(subject, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
