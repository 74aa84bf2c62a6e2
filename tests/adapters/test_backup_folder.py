from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from slipway.adapters.backup_folder import Backup, BackupFolder
from slipway.errors import ArtefactError, ConflictError, NotFoundError


def make(folder: BackupFolder, name: str, files: dict[str, str], source: Path) -> Backup:
    for below, text in files.items():
        path = source / below
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with folder.new(name) as new:
        new.copy("lake", source)
        new.add("env", lambda path: path.write_text("a secret"))
        new.seal({"live": {}})
    return folder.find(name)


def test_what_was_copied_comes_back_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path / "backups")
    made = make(folder, "a", {"x/1": "one", "x/y/2": "two"}, tmp_path / "lake")
    made.verify()
    assert made.place("lake", tmp_path / "again") == 2
    assert (tmp_path / "again" / "x" / "y" / "2").read_text() == "two"
    assert (made.manifest["files"], made.manifest["bytes"]) == (3, 14)
    assert made.path.stat().st_mode & 0o077 == 0
    told = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=made.path, check=False)
    assert told.returncode == 0, "anybody can check it with common tools"


@pytest.mark.parametrize("what", ["changed", "missing", "sums"])
def test_damage_is_noticed_and_named(tmp_path: Path, what: str) -> None:
    made = make(BackupFolder(tmp_path / "backups"), "a", {"x/1": "one"}, tmp_path / "lake")
    victim = made.path / ("SHA256SUMS" if what == "sums" else "lake/x/1")
    victim.unlink() if what == "missing" else victim.write_text("0ne")
    with pytest.raises(ArtefactError, match=victim.name):
        made.verify()


def test_a_backup_that_failed_is_none_and_is_swept(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path)

    def half() -> None:
        with folder.new("a") as new:
            new.add("x", lambda path: path.write_text("x"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    (tmp_path / "killed.partial").mkdir()
    assert folder.all() == []
    with pytest.raises(NotFoundError, match="none"):
        folder.find(None)
    with folder.new("b") as new:
        new.seal({})
        with pytest.raises(ConflictError, match="another backup"), folder.new("c"):
            pass
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["b"]


def test_a_file_that_was_replaced_while_it_was_copied_is_found_by_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "lake"
    source.mkdir()
    for name in ("1", "2"):
        (source / name).write_text(name)

    def compacts(below: str) -> bool:
        if below == "2" and (source / "2").exists():
            (source / "merged").write_text("12")
            (source / "2").unlink()
        return True

    with BackupFolder(tmp_path / "backups").new("a") as new:
        new.copy("lake", source, compacts)
        assert "lake/merged" in new.names("lake")
        assert "lake/2" not in new.names("lake")


def test_two_backups_of_one_second_have_two_names(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path / "backups")
    names = []
    for _ in range(3):
        with folder.new("20261120T100000Z") as new:
            new.seal({})
        names.append(new.name)
    assert names == ["20261120T100000Z", "20261120T100000Z-2", "20261120T100000Z-3"]
    assert [one.name for one in folder.all()] == names


def test_the_newest_stay(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path / "backups")
    for name in ("1", "2", "3"):
        make(folder, name, {"x": name}, tmp_path / "lake")
    assert folder.keep(2) == ["1"]
    assert folder.keep(2) == []
    assert folder.find(None).name == "3"
    assert folder.find("2").name == "2"
    assert folder.find(str(folder.root / "2")).name == "2"


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    made = make(BackupFolder(tmp_path), "a", {"x": "1"}, tmp_path / "lake")
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["sums_sha256"] == hashlib.sha256((made.path / "SHA256SUMS").read_bytes()).hexdigest()
    (made.path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(ArtefactError, match="later Slipway"):
        BackupFolder(tmp_path).find("a")
