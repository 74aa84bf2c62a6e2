"""The cockpit over a seeded fleet, with nothing behind it but Postgres: for pages, pictures and measurements.

Who looks is said by the cookie that Airflow's session would be in: `operator` or `viewer`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from pydantic import SecretStr

from cockpit.seed import REAL, made_up, seed, write_fleet
from contracts.services import eventually, free_port
from contracts.world import make_world
from slipway.core.routes import BackendStats, cluster_name
from slipway.core.slot_metrics import SlotMetrics
from slipway.ports import Package, Slot
from slipway.settings import PROJECT_DIR, Settings
from slipway.wiring import Wiring
from slipway_control.access import person_of
from slipway_control.access import slipway as slipway_of
from slipway_control.airflow_session import COOKIE, AirflowUser
from slipway_control.app import create_app

__all__ = ["Person", "SeededWiring", "cockpit", "mounted", "serving"]


class Person(AirflowUser):
    """Somebody whose role is their name."""

    def sees(self, model: str | None = None) -> bool:
        return self.name in ("operator", "viewer")

    def acts(self, model: str | None = None) -> bool:
        return self.name == "operator"


class SeededWiring(Wiring):
    """Slipway over a seeded database; runtime and gateway are twins that show what the tables say."""

    def __init__(self, url: str, folder: Path, models: int = 0, ledger_rows: int = 0) -> None:
        names = made_up(models)
        write_fleet(folder / "fleet", PROJECT_DIR / "include" / "fleet", names)
        super().__init__(
            Settings(
                home=folder,
                fleet_dir=folder / "fleet",
                control_key=SecretStr("the-key"),
                airflow_secret_key=SecretStr("the-secret"),
            )
        )
        seed(url, datetime.now(UTC), names, ledger_rows)
        self.world = make_world(url)
        self.__dict__["database"] = self.world.database
        self.__dict__["releases"] = replace(self.world.releases)
        self.asked: list[Any] = []
        self._show()
        self._reports(folder)

    def _show(self) -> None:
        """Start what the tables say, and let the gateway apply it."""
        from slipway.core.fleet import routes

        store = self.world.parts.store
        slots, traffic = store.fleet()
        for slot in slots:
            if slot.version:
                tag = f"{slot.model}:v{slot.version}"
                package = Package(slot.model, slot.version, tag, Path("/nowhere"), "")
                self.world.runtime.start(Slot(slot.model, slot.slot, slot.port, slot.version, tag, True), package)
        self.world.gateway.publish(routes(slots, traffic))
        self.world.gateway.stats[cluster_name("housing", "green")] = BackendStats(512, 0, 1)
        self.world.gateway.stats[cluster_name("housing", "blue")] = BackendStats(10236, 3, 2)
        bounds = (0.001, 0.0025, 0.005, 0.01, 0.025)
        self.world.probe.counts["4"] = SlotMetrics(1.0, 412, bounds=bounds, latency=(180, 160, 60, 9, 3, 0))
        self.world.probe.counts["3"] = SlotMetrics(1.0, 1236, bounds=bounds, latency=(600, 470, 140, 20, 6, 0))

    def _reports(self, folder: Path) -> None:
        page = "<!doctype html><title>report</title><h1>A report</h1><script>document.title = 'ran'</script>"
        for model in REAL:
            self.lake.write_report(model, "drift-test", "drift.html", page)

    def start_training(
        self, model: str, reason: str, dataset: str | None, *, actor: str, traffic: bool = False
    ) -> dict[str, Any]:
        kind = "drift" if traffic else "train"
        self.asked.append((kind, model, reason, dataset, actor))
        return {"model": self.spec(model).name, "dag_id": f"{model}_{kind}", "run_id": "manual", "url": ""}

    def start_release(self, model: str, version: str | None, reason: str, *, actor: str) -> dict[str, Any]:
        self.asked.append(("release", model, version, reason, actor))
        return {"model": model, "version": version, "dag_id": f"{model}_release", "run_id": "manual", "url": ""}

    def through_gateway(self, route: str, model: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        self.asked.append((route, model, body))
        if route == "feedback":
            return 202, {}, {}
        answer = {"request_id": "019a0000-0000-7000-8000-000000000001", "model": model, "model_version": "3"}
        answer |= {"slot": "blue", "prediction": "versicolor"}
        shares = {"setosa": 0.02, "versicolor": 0.9, "virginica": 0.08}
        return 200, answer | {"probabilities": shares}, {}


def cockpit(slipway: Wiring) -> FastAPI:
    """The app with logins by name."""

    async def person(request: Request) -> AirflowUser | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer":
            return Person(token, False, None)
        name = request.cookies.get(COOKIE)
        return Person(name, True, None) if name else None

    app = create_app()
    app.dependency_overrides[slipway_of] = lambda: slipway
    app.dependency_overrides[person_of] = person
    return app


def mounted(slipway: Wiring) -> FastAPI:
    """The app where Airflow mounts it."""
    outer = FastAPI()
    outer.mount("/slipway", cockpit(slipway))
    return outer


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app on a free port; its address."""
    import httpx

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/slipway/fleet").status_code == 401, what="the cockpit")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
