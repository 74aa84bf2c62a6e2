"""What the commands on decisions print, from facts as the wiring gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

import slipway.wiring
from slipway.cli import root

DECISION = {
    "key": "retrain:iris:1",
    "at": "2026-11-21T02:01:40.123456+00:00",
    "model": "iris",
    "kind": "retrain",
    "verdict": "held",
    "reasons": ["drift is confirmed", "12 new labels, 100 needed"],
    "evidence": {"quality": {"rows": 12}},
}
OUTCOME = {
    "model": "iris",
    "version": "3",
    "identical": True,
    "candidate": "forest_50",
    "snapshot": "a" * 64,
    "recorded_sha256": "b" * 64,
    "sha256": "b" * 64,
    "rows": 37,
    "differing_rows": 0,
    "largest_difference": 0.0,
    "reasons": ["the same model file and the same answers"],
}


class _Facts:
    def __init__(self, identical: bool = True) -> None:
        self.identical = identical

    def decisions(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        return [DECISION]

    def reproduce(self, model: str, version: str) -> dict[str, Any]:
        return {**OUTCOME, "identical": self.identical}


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str, identical: bool = True) -> tuple[int, str]:
    monkeypatch.setattr(slipway.wiring, "wiring", lambda: _Facts(identical))
    result = CliRunner().invoke(root, list(arguments))
    return result.exit_code, result.output


def test_decisions_are_a_table_with_reasons_in_words_and_whole_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke(monkeypatch, "ledger", "--decisions", "--model", "iris")
    head, line = output.splitlines()
    assert code == 0
    assert head.split() == ["at", "model", "kind", "verdict", "reasons"]
    assert line == "2026-11-21T02:01:40Z  iris   retrain  held     drift is confirmed; 12 new labels, 100 needed"
    _, output = invoke(monkeypatch, "ledger", "--decisions", "--json")
    assert json.loads(output)["evidence"] == DECISION["evidence"]


def test_reproduce_exits_with_0_only_when_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke(monkeypatch, "reproduce", "iris", "3")
    assert code == 0
    assert output.startswith("iris version 3: identical\n")
    assert "0 of 37 held-out rows answered differently" in output
    code, output = invoke(monkeypatch, "reproduce", "iris", "3", "--json", identical=False)
    assert code == 1
    assert json.loads(output)["identical"] is False
