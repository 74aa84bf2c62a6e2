"""Dashboards: the files are what the Python says, and every panel is complete."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

import grafana
from grafana.decisions import VERDICTS
from grafana.rollouts import PHASES
from slipway.core.rollout_record import Phase
from slipway.keeper_metrics import DRIFT_VERDICTS
from slipway.settings import PROJECT_DIR

FOLDER = PROJECT_DIR / "monitoring" / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))
PANELS = [
    pytest.param(panel, id=f"{path.stem}-{panel['title']}")
    for path in FILES
    for panel in json.loads(path.read_text())["panels"]
    if panel["type"] != "row"
]


def test_the_files_are_what_the_python_says() -> None:
    written = {path.name: path.read_text() for path in FILES}
    assert written == dict(grafana.texts()), "run `make dashboards`"
    assert set(written) == {
        f"slipway-{name}.json" for name in ("serving", "rollouts", "decisions", "airflow", "system")
    }


def test_states_are_named_as_the_code_names_them() -> None:
    assert [name for name, _ in PHASES] == [str(phase) for phase in Phase]
    assert [name for name, _ in VERDICTS] == list(DRIFT_VERDICTS)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_complete(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["expr"]
        assert target["legendFormat"]
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "slipway"}
    position = panel["gridPos"]
    assert position["x"] + position["w"] <= 24


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_ids_of_their_own_and_do_not_overlap(path: Any) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_provisioned_datasource_is_the_one_that_panels_ask() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", "slipway")
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "slipway.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/slipway/grafana/dashboards"
