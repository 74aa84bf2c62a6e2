from __future__ import annotations

from pathlib import Path

import pytest

from slipway.errors import NotFoundError
from slipway.settings import Settings
from slipway.stack import logs


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert logs.last_lines(path, 2) == ["line 99998", "line 99999"]
    assert logs.last_lines(path, 0) == []
    assert logs.last_lines(tmp_path / "none.log", 5) == []


def test_parts_are_the_names_of_the_files(settings: Settings) -> None:
    settings.log_dir.mkdir()
    (settings.log_dir / "envoy.log").touch()
    (settings.log_dir / "envoy.log.1").touch()
    assert set(logs.log_files(settings)) == {"envoy"}
    with pytest.raises(NotFoundError, match="logs: envoy"):
        logs.log_files(settings, "envoi")


def test_following_sees_whole_new_lines_also_after_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0)
    path = tmp_path / "a.log"
    path.write_text("old\n")
    lines = logs.follow({"a": path})
    steps = iter(["one\nhal", "f\n"])

    def grow() -> None:
        with path.open("a") as file:
            file.write(next(steps))

    monkeypatch.setattr(logs.time, "sleep", lambda _: grow())
    assert next(lines) == ("a", "one")
    assert next(lines) == ("a", "half")

    def rotate(_: float) -> None:
        path.rename(tmp_path / "a.log.1")
        path.write_text("fresh\n")

    monkeypatch.setattr(logs.time, "sleep", rotate)
    assert next(lines) == ("a", "fresh")
