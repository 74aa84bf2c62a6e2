"""Alerts: each has its unit test, its section of the runbook, and what people need to read in it."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from prometheus_parts import RULES, hurry, require
from slipway.keeper_metrics import Metrics
from slipway.settings import PROJECT_DIR

TESTS = sorted((RULES.parent / "tests").glob("*.yml"))
FILES = sorted(RULES.glob("*.yml"))
RUNBOOKS = PROJECT_DIR / "docs" / "runbooks.md"
OVERVIEW = PROJECT_DIR / "docs" / "monitoring.md"


def rules() -> list[dict[str, Any]]:
    return [rule for path in FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_help_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert len(annotations["summary"]) < 120
    assert annotations["description"].endswith((".", "{{ end }}."))
    assert annotations["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    text = RUNBOOKS.read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titled = {section.splitlines()[0].strip(): section for section in sections}
    assert sorted(titled) == NAMES
    for name, section in titled.items():
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in section, f"{name} lacks {part}"


def test_the_overview_lists_every_alert_with_its_severity() -> None:
    text = OVERVIEW.read_text()
    for severity in ("critical", "warning", "info"):
        (row,) = re.findall(rf"^\| {severity} \| (.+) \|$", text, flags=re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == {
            rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == severity
        }


def test_the_overview_lists_every_metric_of_the_keeper() -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    Metrics(registry)
    text = OVERVIEW.read_text()
    assert [metric.name for metric in registry.collect() if f"`{metric.name}" not in text] == []


def test_the_runbook_names_only_commands_that_exist() -> None:
    import click

    from slipway.cli import root

    named = set(re.findall(r"`slipway ([a-z][a-z-]*)", RUNBOOKS.read_text()))
    assert named <= set(root.list_commands(click.Context(root)))


def test_every_alert_fires_in_a_unit_test() -> None:
    fires: set[str] = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            fires |= {case["alertname"] for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
            samples = [sample for case in test.get("promql_expr_test", []) for sample in case["exp_samples"]]
            fires |= {name for sample in samples for name in re.findall(r'alertname="(\w+)"', sample["labels"])}
    assert fires == set(NAMES)


def test_every_metric_that_a_rule_asks_the_keeper_for_is_exported() -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    Metrics(registry)
    exported = {metric.name for metric in registry.collect()}
    own = r"\b(model_\w+|rollout_\w+|champion_\w+|keeper_\w+|storage_\w+)\b"
    asked = {name for rule in rules() for name in re.findall(own, re.sub(r"\w+:\w+:\w+", "", rule["expr"]))}
    asked -= {rule["record"] for rule in rules() if "record" in rule}
    assert {name.removesuffix("_total") for name in asked} <= exported


def test_hurry_shortens_durations_and_nothing_else() -> None:
    text = "expr: increase(a[6h] offset 1h) > 7200\nfor: 15m\nlabels: {of: 5m}\nx: rate(b[1m])\ngroup_wait: 30s\n"
    assert hurry(text) == (
        "expr: increase(a[720s] offset 120s) > 7200\nfor: 30s\nlabels: {of: 5m}\nx: rate(b[8s])\ngroup_wait: 1s\n"
    )


@pytest.mark.monitoring
def test_the_rules_are_valid_and_do_what_their_unit_tests_say() -> None:
    promtool = require("promtool")
    checked = subprocess.run([promtool, "check", "rules", *FILES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = subprocess.run([promtool, "test", "rules", *TESTS], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr
