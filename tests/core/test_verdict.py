from __future__ import annotations

import itertools

import pytest

from slipway.core.verdict import Check, Verdict, worst


@pytest.mark.parametrize("verdicts", itertools.permutations(Verdict))
def test_a_failure_wins_over_everything(verdicts: tuple[Verdict, ...]) -> None:
    assert worst(verdicts) is Verdict.FAIL


def test_an_error_is_worse_than_too_little_evidence_and_both_worse_than_a_pass() -> None:
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR]) is Verdict.ERROR
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.PASS, Verdict.PASS]) is Verdict.PASS


def test_having_looked_at_nothing_is_not_a_pass() -> None:
    assert worst([]) is Verdict.INCONCLUSIVE


def test_a_check_is_plain_json() -> None:
    check = Check("errors", Verdict.FAIL, "2 of 100", {"rate": 0.02})
    assert check.as_dict() == {"name": "errors", "verdict": "fail", "reason": "2 of 100", "evidence": {"rate": 0.02}}
