"""The iris of this installation with a rollout that takes seconds, so that a fault run gets through many."""

from __future__ import annotations

from slipway.settings import PROJECT_DIR
from slipway.spec import Step, load_model

REAL = load_model(PROJECT_DIR / "include" / "fleet", "iris")
POLICY = REAL.rollout.model_copy(
    update={
        "steps": (Step(weight=25, bake_seconds=0.5), Step(weight=100, bake_seconds=0.5)),
        "bake_seconds": 1.0,
        "ready_timeout_seconds": 60.0,
        "deadline_seconds": 180.0,
        "min_requests": 0,
        "replay_requests": 50,
        "shadow_percent": 50,
        "shadow_seconds": 1.0,
        "keep_warm_seconds": 3600.0,
        "drain_seconds": 5.0,
    }
)
MODEL = REAL.model_copy(update={"rollout": POLICY, "candidates": REAL.candidates[:1]})
