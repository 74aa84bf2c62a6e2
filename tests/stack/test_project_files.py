"""Files that people type from: they must name what exists."""

from __future__ import annotations

import subprocess

import pytest

from slipway.settings import PROJECT_DIR, Settings

INTERNAL = {"project_dir", "fleet_dir", "serving_python", "fault_hook"}


def test_the_example_names_every_setting_with_its_default() -> None:
    lines = (PROJECT_DIR / ".env.example").read_text().splitlines()
    pairs = [line.removeprefix("# ").partition("=") for line in lines if line.startswith("# SLIPWAY_") and "=" in line]
    shown = {name.removeprefix("SLIPWAY_").lower(): value for name, _, value in pairs}
    assert set(shown) == set(Settings.model_fields) - INTERNAL
    for name, field in Settings.model_fields.items():
        if name in shown and field.default_factory is None:
            default = "" if field.default is None else str(field.default)
            assert shown[name].lower() == default.removesuffix(".0").lower(), name


def test_no_secret_has_a_default() -> None:
    secret = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert len(secret) == 16
    assert all(Settings.model_fields[name].default is None for name in secret)


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-unit", "up", "down", "status", "logs", "train", "serve", "lint", "lock", "doctor"]
)
def test_make_has_the_target_and_explains_it(target: str) -> None:
    listing = subprocess.run(["make", "help"], cwd=PROJECT_DIR, capture_output=True, text=True, check=True).stdout
    assert any(line.split()[0] == target and len(line.split()) > 2 for line in listing.splitlines())


def test_locks_hold_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-celery.lock", "requirements-dev.lock", "bentos/requirements.lock"):
        text = (PROJECT_DIR / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
