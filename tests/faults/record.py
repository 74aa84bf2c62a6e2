"""What is kept of a round that failed, so that it is explained from its own record and not from a repetition.

`var/bench/failed/<cell>-<time>/` has the verdict, the story, the rollout as it was left and the ledger's rows in
`round.json`, every reply in `replies.jsonl`, and what each log gained in the round in `logs/`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from faults.judging import Round, Story
from loop.open_load import Reply
from slipway.core.rollout_record import Rollout
from slipway.ports import LedgerEntry

__all__ = ["keep_record", "log_sizes"]

_LONGEST_TAIL_BYTES = 5_000_000


def log_sizes(logs: Path) -> dict[str, int]:
    """The bytes of every file below a folder, by its path there."""
    return {str(path.relative_to(logs)): path.stat().st_size for path in logs.rglob("*") if path.is_file()}


def keep_record(
    failed: Path,
    outcome: Round,
    story: Story,
    replies: Sequence[Reply],
    rows: Sequence[LedgerEntry],
    rollout: Rollout | None,
    logs: Path,
    sizes_before: dict[str, int],
) -> Path:
    """Write the record of a round into a folder below `failed`; that folder."""
    began = datetime.fromtimestamp(story.began, UTC)
    folder = failed / f"{outcome.cell.replace(' ', '-').replace(':', '-')}-{began:%Y%m%dT%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "round": dataclasses.asdict(outcome),
        "story": dataclasses.asdict(story),
        "began": began.isoformat(),
        "rollout": dataclasses.asdict(rollout) if rollout else None,
        "ledger": [dataclasses.asdict(row) for row in rows if row.at >= began],
    }
    (folder / "round.json").write_text(json.dumps(record, indent=1, default=str))
    lines = (json.dumps(dataclasses.asdict(reply)) + "\n" for reply in sorted(replies, key=lambda one: one.sent))
    (folder / "replies.jsonl").write_text("".join(lines))
    for name, size in log_sizes(logs).items():
        start = sizes_before.get(name, 0)
        if size != start:  # a shorter one was begun anew
            _copy_tail(logs / name, folder / "logs" / name, start if size > start else 0)
    return folder


def _copy_tail(source: Path, target: Path, start: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as log:
        log.seek(max(start, source.stat().st_size - _LONGEST_TAIL_BYTES))
        target.write_bytes(log.read())
