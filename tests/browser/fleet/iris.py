"""The iris of this installation as a careful team would release it: a short canary, and a person says yes."""

from __future__ import annotations

from slipway.policy import canary
from slipway.settings import PROJECT_DIR
from slipway.spec import load_model

REAL = load_model(PROJECT_DIR / "include" / "fleet", "iris")
ROLLOUT = REAL.rollout.model_copy(
    update={
        "steps": canary(25, 50, bake_seconds=4),
        "bake_seconds": 2.0,
        "min_requests": 0,
        "replay_requests": 50,
        "approval": "before_promotion",
        "approval_timeout_seconds": 600.0,
        "keep_warm_seconds": 3600.0,
    }
)
# Whoever looks decides here: nothing is retrained by itself.
RETRAIN = REAL.retrain.model_copy(update={"max_per_week": 0})
MODEL = REAL.model_copy(update={"rollout": ROLLOUT, "retrain": RETRAIN, "candidates": REAL.candidates[:1]})
