"""The proof of the log: many predictions while everything that takes part is killed at random moments.

`python -m faults.log_run --predictions 200000 --kills 100` is the whole proof (`make faults-log`); the tests run a
short one. A prediction counts as answered when its client has the whole reply.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from faults.log_parts import Bento, Keeper, Loop, Part, Postgres

_BASE = 0x0198C6B4_31B6_7BE2_8000_000000000000
_CONNECTIONS = 8
_STUCK_SECONDS = 60
_SPOOL = {
    "SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": "0.5",
    "SLIPWAY_SPOOL_SEGMENT_MAX_BYTES": "65536",
}


def rows_of(number: int) -> int:
    """Most requests hold one row, some a small batch."""
    return 2 + number % 5 if number % 20 == 7 else 1


def request_id(number: int) -> str:
    return str(uuid.UUID(int=_BASE + number))


def request(number: int) -> bytes:
    """A request whose rows say which request and which row they are."""
    rows = [
        {"sepal_length": 1 + number % 1000 / 100, "sepal_width": row + 0.5, "petal_length": 1.4, "petal_width": 0.2}
        for row in range(rows_of(number))
    ]
    body = json.dumps({"rows": rows}).encode()
    head = (
        f"POST /predict/iris HTTP/1.1\r\nhost: bento\r\ncontent-type: application/json\r\n"
        f"x-request-id: {request_id(number)}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Outcome:
    """What came of a run; everything but `seconds` and the counts at the top must be zero or equal."""

    predictions: int
    kills: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    answered_requests: int = 0
    answered_rows: int = 0
    unanswered_requests: int = 0
    logged_requests: int = 0
    logged_rows: int = 0
    accounted_rows: int = 0
    files: int = 0
    reads: int = 0
    lost_requests: int = 0
    doubled_rows: int = 0
    torn_requests: int = 0
    wrong_rows: int = 0
    rows_out_of_order: int = 0
    unknown_requests: int = 0
    answered_and_not_accounted: int = 0
    wrong_reads: int = 0
    left_in_spool: int = 0

    def faults(self) -> dict[str, int]:
        """Whatever must be zero and is not."""
        names = (
            "lost_requests", "doubled_rows", "torn_requests", "wrong_rows", "rows_out_of_order", "unknown_requests",
            "answered_and_not_accounted", "wrong_reads", "left_in_spool",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names if getattr(self, name)}


class Run:
    """One run in one folder."""

    def __init__(self, folder: Path, predictions: int, kills: int, seed: int, say: Callable[[str], None]) -> None:
        self.folder, self.predictions, self.kills, self.say = folder, predictions, kills, say
        self.random = random.Random(seed)
        self.outcome = Outcome(predictions)
        self.answered: set[int] = set()
        self.asked = 0
        self.allowed = 0
        self.killed: list[str] = []
        self.bento = Bento(folder, folder / "spool", **_SPOOL)
        self.postgres = Postgres(folder)
        self.keeper = Keeper(folder, self.postgres.cluster.port)
        self.compaction = Loop(folder, "compaction")
        self.reader = Loop(folder, "reading")
        self.parts: list[Part] = [self.bento, self.postgres, self.keeper, self.compaction, self.reader]

    async def go(self) -> Outcome:
        self.began = time.monotonic()
        (self.folder / "lake").mkdir()
        try:
            for part in self.parts:
                part.ensure()
            watch = asyncio.create_task(self._keep_alive())
            killer = asyncio.create_task(self._kill())
            clients = asyncio.gather(*(self._client() for _ in range(_CONNECTIONS)), killer)
            while not clients.done():
                before = len(self.answered)
                await asyncio.wait([clients], timeout=_STUCK_SECONDS)
                if not clients.done() and len(self.answered) == before:
                    clients.cancel()
                    raise RuntimeError(f"nothing was answered for {_STUCK_SECONDS} s; see the logs in {self.folder}")
            await clients
            self.bento.stop()
            await self._drain()
            watch.cancel()
        finally:
            for part in self.parts:
                part.stop()
        self.outcome.seconds = time.monotonic() - self.began
        self.outcome.kills = dict(Counter(self.killed))
        return self.outcome

    @property
    def done(self) -> bool:
        return len(self.answered) >= self.predictions

    async def _client(self) -> None:
        """Ask until enough is answered; a request whose connection broke is not asked again."""
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.done:
            if len(self.answered) >= self.allowed:
                await asyncio.sleep(0.01)
                continue
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.bento.port)
                reader, writer = connection
                number, self.asked = self.asked, self.asked + 1
                writer.write(request(number))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if head.startswith(b"HTTP/1.1 200"):
                    self.answered.add(number)
                else:
                    await asyncio.sleep(0.05)
            except (OSError, asyncio.IncompleteReadError, IndexError):
                if connection is not None:
                    connection[1].close()
                connection = None
                await asyncio.sleep(0.05)

    async def _kill(self) -> None:
        share = self.predictions // (self.kills + 1)
        marks = sorted(self.random.randrange(self.predictions - share) for _ in range(self.kills))
        actions: dict[str, tuple[Callable[[], bool], int]] = {
            "worker": (self.bento.kill_worker, 40),
            "keeper": (self.keeper.kill, 25),
            "postgres": (self.postgres.kill, 15),
            "compaction": (self.compaction.kill, 15),
            "bento": (self.bento.kill, 5),
        }
        for index, mark in enumerate(marks):
            # Requests go on while this kill is prepared, but do not run ahead of it.
            self.allowed = mark + share
            while len(self.answered) < mark:
                await asyncio.sleep(0.005)
            await asyncio.sleep(self.random.random() * 0.3)
            name = self.random.choices(list(actions), [weight for _, weight in actions.values()])[0]
            while not actions[name][0]():
                await asyncio.sleep(self.random.random() * 0.2)
            self.killed.append(name)
            seconds = time.monotonic() - self.began
            self.say(f"{seconds:6.1f} s  {index + 1}/{self.kills} killed {name}; {len(self.answered):,} answered")
            # Long enough now and then for the part to be at work again, short enough to hit it while it starts.
            await asyncio.sleep(self.random.random() * 2)
        self.allowed = self.asked + 100 * self.predictions

    async def _keep_alive(self) -> None:
        while True:
            for part in self.parts:
                if part is not self.bento or not self.done:
                    part.ensure()
            await asyncio.sleep(0.1)

    async def _drain(self) -> None:
        """Until the keeper has shipped everything."""
        from slipway.adapters.spool import Spool

        spool = Spool(self.folder / "spool")
        deadline = time.monotonic() + 60
        while spool.waiting_since() is not None and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        self.outcome.left_in_spool = len(spool.sealed())

    def check(self) -> None:
        """Compare what the clients got with what is in the lake."""
        from slipway.adapters.lake import ParquetLake
        from slipway.adapters.log_accounts import LogAccounts
        from slipway.adapters.log_folders import LogFolders
        from slipway.adapters.tally import Tallies

        url = str(self.folder / "lake")
        now = datetime.now(UTC)
        start, end = now - timedelta(days=1), now + timedelta(days=1)
        out = self.outcome
        frame = ParquetLake(url).predictions("iris", start, end)
        out.doubled_rows = int(frame.duplicated(["request_id", "row"]).sum())
        numbers = frame["request_id"].map(lambda text: uuid.UUID(text).int - _BASE)
        frame = frame.assign(number=numbers)
        out.unknown_requests = int((~numbers.between(0, self.asked - 1)).sum())
        counts = frame.groupby("number").size().to_dict()
        out.logged_rows, out.logged_requests = len(frame), len(counts)
        out.answered_requests = len(self.answered)
        out.unanswered_requests = self.asked - len(self.answered)
        out.answered_rows = sum(rows_of(number) for number in self.answered)
        out.lost_requests = len(self.answered - set(counts))
        out.torn_requests = sum(count != rows_of(number) for number, count in counts.items())
        expected = 1 + frame["number"] % 1000 / 100
        wrong = ((frame["sepal_length"] - expected).abs() > 1e-9) | (frame["sepal_width"] - 0.5 != frame["row"])
        out.wrong_rows = int(wrong.sum())
        out.rows_out_of_order = self._out_of_order(url, start, end)
        hours = LogAccounts(url).counts("iris", start, end, Tallies(self.folder / "spool").read())
        out.accounted_rows = sum(hour["answered"] for hour in hours.values())
        out.answered_and_not_accounted = max(0, out.answered_rows - out.accounted_rows)
        count = LogFolders(url).count("iris")
        out.files = count.shipped + count.compacted
        reads = [json.loads(line) for line in (self.folder / "reads").read_text().splitlines()]
        out.reads = len(reads)
        shrunk = sum(later[0] < before[0] for before, later in itertools.pairwise(reads))
        out.wrong_reads = shrunk + sum(bool(twice or torn) for _, twice, torn in reads)

    @staticmethod
    def _out_of_order(url: str, start: datetime, end: datetime) -> int:
        """Rows that stand in their file before an earlier one of their request, or apart from it."""
        from slipway.adapters.lake import ParquetLake

        lake, wrong = ParquetLake(url), 0
        for path in lake._log_files("predictions", "iris", start, end):
            table: Any = lake._files.table(path)
            before: tuple[str, int] = ("", -1)
            for pair in zip(table["request_id"].to_pylist(), table["row"].to_pylist(), strict=True):
                wrong += pair[1] != (before[1] + 1 if pair[0] == before[0] else 0)
                before = pair
        return wrong


def run(folder: Path, predictions: int, kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Do it and check it."""
    made = Run(folder, predictions, kills, seed, say)
    asyncio.run(made.go())
    made.check()
    return made.outcome


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slipway-faults-") as folder:
        outcome = run(
            Path(folder), chosen.predictions, chosen.kills, chosen.seed, lambda text: print(text, file=sys.stderr)
        )
    print(json.dumps({"seed": chosen.seed, **asdict(outcome)}, indent=2))
    print("FAILED: " + json.dumps(outcome.faults()) if outcome.faults() else "every answered row is there, once")
    return 1 if outcome.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
