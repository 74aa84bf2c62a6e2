"""A slot agent over Docker in memory, spoken to as its clients speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from contracts.bento_stub import stub_bento
from contracts.engine_twin import TwinEngine
from slipway.agent.app import create_app
from slipway.agent.images import Images
from slipway.agent.slots import Slots
from slipway.ports import Package
from slipway.settings import Settings

BASE, TOKEN = "slipway-serving:test", "a-token-of-this-test-only"


@dataclass
class Agent:
    """The agent's HTTP face, and what is behind it."""

    http: TestClient
    engine: TwinEngine
    slots: Slots
    images: Images
    bentos: Path

    def bento(self, version: str = "1", model: str = "iris", content: str = "") -> Package:
        return stub_bento(self.bentos, model, version, content)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers or None)

    def start(self, package: Package, slot: str = "blue", **more: Any) -> dict[str, Any]:
        answer = self.post("/slots/start", {**image_of(package), "slot": slot, **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def stop(self, slot: str = "blue", model: str = "iris", verb: str = "stop") -> None:
        answer = self.post(f"/slots/{verb}", {"model": model, "slot": slot, "seconds": 2.0})
        assert answer.status_code == 200, answer.text

    def listed(self) -> dict[str, tuple[str, bool]]:
        slots = self.http.get("/slots").json()["slots"]
        return {f"{one['model']}-{one['slot']}": (one["version"], one["running"]) for one in slots}

    def versions(self, model: str = "iris") -> list[str]:
        return [one["version"] for one in self.http.get("/images").json()["images"] if one["model"] == model]


def image_of(package: Package) -> dict[str, str]:
    return {"model": package.model, "version": package.version, "digest": package.digest}


def new_agent(bentos: Path, engine: TwinEngine, **settings: Any) -> Agent:
    chosen = Settings(_env_file=None, serving_image=BASE, **settings)
    images = Images(engine, bentos, BASE, chosen.bento_max_mb)
    slots = Slots(engine, images, chosen)
    http = TestClient(create_app(engine, slots, images, TOKEN), headers={"authorization": f"Bearer {TOKEN}"})
    return Agent(http, engine, slots, images, bentos)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = new_agent(tmp_path / "bentos", TwinEngine(BASE))
    yield made
    made.http.close()
