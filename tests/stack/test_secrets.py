from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack.secrets import SECRETS, ensure_secrets, missing_secrets


@pytest.fixture(autouse=True)
def _no_secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)


def _values(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_a_first_start_generates_every_secret_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / ".env"
    assert ensure_secrets(path) == list(SECRETS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = _values(path)
    assert set(values) == set(SECRETS)
    assert len(set(values.values())) == len(SECRETS)
    assert all(len(value) >= 20 for value in values.values())


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    ensure_secrets(path)
    before = path.read_bytes()
    assert ensure_secrets(path) == []
    assert path.read_bytes() == before


def test_the_users_own_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nSLIPWAY_GATEWAY_PORT=9000\nSLIPWAY_CONTROL_KEY=chosen\n")
    made = ensure_secrets(path)
    assert "SLIPWAY_CONTROL_KEY" not in made
    assert path.read_text().startswith("# mine\nSLIPWAY_GATEWAY_PORT=9000\nSLIPWAY_CONTROL_KEY=chosen\n")


def test_an_empty_assignment_is_filled_in_and_not_doubled(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("SLIPWAY_CONTROL_KEY=\n")
    assert "SLIPWAY_CONTROL_KEY" in ensure_secrets(path)
    assert path.read_text().count("SLIPWAY_CONTROL_KEY=") == 1
    assert _values(path)["SLIPWAY_CONTROL_KEY"]


def test_a_secret_of_the_environment_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_CONTROL_KEY", "from outside")
    path = tmp_path / ".env"
    assert "SLIPWAY_CONTROL_KEY" not in ensure_secrets(path)
    assert "SLIPWAY_CONTROL_KEY" not in path.read_text()
    assert missing_secrets(path) == []


def test_a_file_that_others_can_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    ensure_secrets(path)
    path.chmod(0o644)
    ensure_secrets(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_instead_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(StackError, match=r"cannot read .*\.env"):
        ensure_secrets(tmp_path / ".env")


def test_settings_read_what_was_generated_and_the_fernet_key_has_its_form(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    ensure_secrets(path)
    settings = Settings(_env_file=path, home=tmp_path)  # type: ignore[call-arg]
    for name in SECRETS:
        assert settings.secret(name.removeprefix("SLIPWAY_").lower())
    assert len(base64.urlsafe_b64decode(settings.secret("airflow_fernet_key"))) == 32
