"""A round that failed can be explained from what is kept of it; how much the host withheld is counted."""

from __future__ import annotations

import json
import math
from pathlib import Path

from faults.judging import Killed, Round, Story
from faults.record import keep_record, log_sizes
from loop.host import ProcessorTime
from loop.open_load import Reply


def test_the_record_has_the_round_every_reply_and_what_the_logs_gained(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "tasks").mkdir(parents=True)
    (logs / "keeper.log").write_text("before\n")
    (logs / "quiet.log").write_text("before\n")
    (logs / "rotated.log").write_text("a long text before\n")
    sizes = log_sizes(logs)
    with (logs / "keeper.log").open("a") as log:
        log.write("in the round\n")
    (logs / "tasks" / "new.log").write_text("new\n")
    (logs / "rotated.log").write_text("begun anew\n")

    outcome = Round("driver after saved:baking", problems=["it broke"], withheld_share=0.4)
    story = Story(began=1_700_000_000.0, killed=Killed("keeper", 2.0, 3.0))
    replies = [Reply(2.0, 3.0, 503), Reply(1.0, 2.0, 200, "1")]
    folder = keep_record(tmp_path / "failed", outcome, story, replies, [], None, logs, sizes)

    assert folder == tmp_path / "failed" / "driver-after-saved-baking-20231114T221320"
    record = json.loads((folder / "round.json").read_text())
    assert record["round"]["problems"] == ["it broke"]
    assert record["round"]["withheld_share"] == 0.4
    assert record["story"]["killed"]["part"] == "keeper"
    kept = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert [(reply["sent"], reply["status"]) for reply in kept] == [(1.0, 200), (2.0, 503)]
    files = {str(path.relative_to(folder / "logs")): path for path in (folder / "logs").rglob("*.log")}
    assert {name: path.read_text() for name, path in files.items()} == {
        "keeper.log": "in the round\n",
        "rotated.log": "begun anew\n",
        "tasks/new.log": "new\n",
    }


def test_the_share_that_the_host_withheld_is_of_what_was_wanted() -> None:
    then = ProcessorTime(ran=10.0, withheld=1.0)
    assert math.isclose(ProcessorTime(ran=13.0, withheld=2.0).withheld_share_since(then), 0.25)
    assert ProcessorTime(ran=13.0, withheld=1.0).withheld_share_since(then) == 0.0
    assert ProcessorTime.now().withheld_share_since(ProcessorTime.now()) <= 1.0
