"""Writes every dashboard: `make dashboards`."""

from __future__ import annotations

from grafana import FOLDER, texts

wanted = dict(texts())
for name, text in wanted.items():
    (FOLDER / name).write_text(text, encoding="utf-8")
for path in FOLDER.glob("*.json"):
    if path.name not in wanted:
        path.unlink()
