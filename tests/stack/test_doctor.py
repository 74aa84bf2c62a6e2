from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from slipway.settings import PROJECT_DIR, Settings
from slipway.stack import doctor
from slipway.stack.doctor import Finding, examine, lock_differences, locked_versions


@pytest.fixture
def quiet(settings: Settings, free_port: int) -> Settings:
    """A stack that does not run, whose supervisor's port nobody has."""
    settings.home.chmod(0o700)
    return settings.model_copy(update={"supervisor_port": free_port})


def _by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_a_lock_is_read_without_what_other_platforms_need(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(
        "Foo.Bar==1.2 \\\n    --hash=sha256:00\n    # via x\n"
        "colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
        "uvicorn[standard]==2.0\n"
    )
    assert locked_versions(lock) == {"foo-bar": "1.2", "uvicorn": "2.0"}


def test_differences_to_the_lock_are_named(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    (site / "foo_bar-1.1.dist-info").mkdir(parents=True)
    lock = tmp_path / "a.lock"
    lock.write_text("foo-bar==1.2\nbaz==3\n")
    found = lock_differences(tmp_path / "bin" / "python", lock)
    assert found == ["foo-bar 1.1 instead of 1.2", "baz missing instead of 3"]


def test_this_environment_fits_its_lock() -> None:
    assert lock_differences(Path(sys.executable), PROJECT_DIR / "requirements.lock") == []


def test_a_stack_at_rest_is_examined_without_an_exception(quiet: Settings) -> None:
    found = _by_subject(list(examine(quiet)))
    assert found["python"].level == "ok"
    assert found["secrets"].level == "ok"
    assert found["home"].level == "ok"
    assert found["stack"].text == "not running; start it with `slipway up`"


def test_a_taken_port_is_named_with_its_owner(quiet: Settings) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        found = _by_subject(list(examine(quiet.model_copy(update={"gateway_port": port}))))
    finding = found[f"port {port}"]
    assert finding.level == "problem"
    assert finding.text.startswith("wanted by envoy, held by process ")


def test_secrets_that_others_can_read_are_a_problem(quiet: Settings) -> None:
    (quiet.home / ".env").chmod(0o640)
    finding = _by_subject(list(examine(quiet)))["secrets"]
    assert finding.level == "problem"
    assert "chmod 600" in finding.text


def test_a_missing_serving_environment_is_a_problem(quiet: Settings, tmp_path: Path) -> None:
    changed = quiet.model_copy(update={"serving_python": tmp_path / "none" / "bin" / "python"})
    assert _by_subject(list(examine(changed)))["serving environment"].level == "problem"


def test_a_full_disk_is_a_problem(quiet: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK_BYTES", 2**62)
    assert _by_subject(list(examine(quiet)))["disk"].level == "problem"
