"""What the keeper says about differences: each once, and again when it comes back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from slipway.jobs.reconcile import Finding
from slipway.keeper import Keeper, Metrics


def test_a_lasting_difference_is_said_once_and_again_after_it_was_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()
    nothing: Any = None
    keeper = Keeper(nothing, Metrics(registry))
    lasting = Finding("alias", "iris", "MLflow does not answer", repaired=False)
    fixed = Finding("slot", "iris", "slot blue should run version 1", repaired=True)

    def differences() -> float | None:
        return registry.get_sample_value("keeper_differences", {"part": "registry"})

    for findings in ([lasting, fixed], [lasting]):
        keeper._report("registry", findings)
        assert differences() == 1
    keeper._report("registry", [])
    assert differences() == 0
    keeper._report("registry", [lasting])
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" ")[0] for text in said] == ["alias", "slot", "alias"]
    assert said[0].endswith("(not repaired)")
    assert said[1].endswith("(repaired)")
