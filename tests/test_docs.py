"""What the pages of docs/ state about defaults and names is what the code has."""

from __future__ import annotations

import re

from slipway.policy import ChecksPolicy, RolloutPolicy, all_at_once, canary, linear
from slipway.settings import PROJECT_DIR

DOCS = PROJECT_DIR / "docs"


def test_the_releases_page_states_the_whole_default_policy() -> None:
    block = re.search(r"```python\n(rollout = .*?)```", (DOCS / "releases.md").read_text(), re.DOTALL)
    assert block is not None
    found: dict[str, RolloutPolicy] = {}
    exec(block[1], {"RolloutPolicy": RolloutPolicy, "ChecksPolicy": ChecksPolicy, "canary": canary}, found)
    assert found["rollout"] == RolloutPolicy()
    named = set(re.findall(r"\b(\w+)=", block[1]))
    assert {*RolloutPolicy.model_fields, *ChecksPolicy.model_fields} - named == set()
    assert all(f"{make.__name__}(" in block[1] for make in (all_at_once, linear))


def test_the_monitoring_page_names_every_metric_of_a_bento() -> None:
    source = (PROJECT_DIR / "bentos" / "predictor" / "metrics.py").read_text()
    metrics = {name for name in re.findall(r'"([a-z_]+)"', source) if name.startswith(("prediction_", "feedback_"))}
    page = (DOCS / "monitoring.md").read_text()
    assert len(metrics) > 10
    assert {name for name in metrics if f"`{name}" not in page} == set()
