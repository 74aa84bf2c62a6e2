"""Bentos that are a few bytes, in the folders where the agent looks for them."""

from __future__ import annotations

from pathlib import Path

from slipway.adapters.bento_files import digest_of
from slipway.ports import Package


def stub_bento(bentos: Path, model: str = "iris", version: str = "1", content: str = "") -> Package:
    """A bento that only has a description and one file."""
    folder = bentos / model / f"v{version}"
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "bento.yaml").write_text(f"name: {model}\nversion: v{version}\ncreation_time: 2026-11-20\n")
    (folder / "src" / "model.txt").write_text(content or f"{model} {version}")
    return Package(model, version, f"{model}:v{version}", folder, digest_of(folder), "d" * 64, "c0ffee", {})
