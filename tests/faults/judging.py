"""What is wrong with a round: as its clients saw it, as the ledger has it, and as the tables were left.

Everything here is a function of what was recorded, so that each verdict can be tried on a broken world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from loop.open_load import Reply
from slipway.adapters.envoy_replies import BROKEN_OFF
from slipway.core.history import LIVE, STARTED, TRAFFIC, served
from slipway.core.rollout_record import Phase, Rollout
from slipway.jobs.releases import Releases
from slipway.ports import LedgerEntry

__all__ = ["Before", "Killed", "Round", "Story", "broken", "judge_clients", "too_few"]

MODEL = "iris"
LONGEST_OUTAGE_SECONDS = 5.0
# So long after its last process was gone a slot may still be taken for alive by a gateway that gets no processor to see
# its connections closed. The slot's next process takes longer to start.
UNNOTICED_SECONDS = 2.0
# Between writing a shift and the gateway's new weights. This and the longest outage hold for a machine that has its
# processors: they grow with the share of them that its host withheld during the round.
TOLERANCE_SECONDS = 1.0
# Beyond this the stretch of those bounds grows no more.
MOST_WITHHELD_SHARE = 0.75
# With 50 requests a second, a machine that answers nothing for so long stands still.
STANDSTILL_SECONDS = 0.25
# So long after a kill another process may still have to carry out a shift that the ledger has already.
TAKE_OVER_SECONDS = 5.0


@dataclass(frozen=True)
class Killed:
    """What was killed, by Supervisor's name.

    Attributes:
        at: Unix time just before the signal.
        gone: when no process of it was left.
        carried: whether it had traffic then, by the tables; the gateway always has. A slot also counts as having
            traffic when a shift that the ledger had before gave it some.
    """

    part: str
    at: float
    gone: float
    carried: bool = False

    @property
    def slot(self) -> str | None:
        """The slot of a killed bento."""
        prefix = f"slot-{MODEL}-"
        return self.part.removeprefix(prefix) if self.part.startswith(prefix) else None


@dataclass
class Story:
    """When things happened in a round, in Unix time.

    Attributes:
        shaken: from when the harness held or killed something until whoever takes over must have done so.
        settled: when everything agreed again; after that only `live` may answer.
    """

    began: float
    killed: Killed | None = None
    shaken: tuple[float, float] | None = None
    settled: float = math.inf
    over: float = math.inf
    live: str = ""


@dataclass
class Round:
    """What came of one round; `problems` must be empty.

    Attributes:
        excused: failed requests that were under way in the slot that was killed, or sent while the gateway was dead.
        outage_seconds: how long after the kill the last of them was sent.
        overtaken: why nothing was killed; such a round is judged and played again.
        failure: why the version was rolled back.
        withheld_share: of the machine's processor time, what its host gave to others; 0 to 1.
    """

    cell: str
    ended: str = ""
    failure: str = ""
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    excused: int = 0
    outage_seconds: float = 0.0
    seconds: float = 0.0
    overtaken: str = ""
    withheld_share: float = 0.0

    @property
    def stretch(self) -> float:
        """By how much a second of work took longer, because the host ran others; at least 1."""
        return 1 / (1 - min(self.withheld_share, MOST_WITHHELD_SHARE))


def too_few(replies: Sequence[Reply], rate: float, seconds: float) -> list[str]:
    """A load that stood still proves nothing."""
    wanted = rate * seconds
    return [f"only {len(replies)} of {wanted:.0f} requests were made"] if len(replies) < wanted / 2 else []


def judge_clients(
    outcome: Round, story: Story, replies: Sequence[Reply], rows: Sequence[LedgerEntry], rate: float
) -> None:
    """Add to the outcome what the clients of this round saw, given all replies and the ledger, oldest row first.

    The outcome must say already which share of the processors was withheld.
    """
    replies = [reply for reply in replies if story.began <= reply.sent < story.over]
    outcome.requests = len(replies)
    outcome.problems += too_few(replies, rate, story.over - story.began)
    failed = [reply for reply in replies if reply.status != 200]
    dead = outage(story.killed, replies, rows, outcome.stretch)
    excused = [reply for reply in failed if dead and dead.excuses(reply)]
    outcome.excused = len(excused)
    if dead and excused:
        outcome.outage_seconds = round(max(0.0, max(reply.sent for reply in excused) - dead.start), 2)
        if len(excused) > (most := dead.most_lost(replies)):
            outcome.problems.append(f"{len(excused)} requests failed, of which the killed slot had at most {most:.0f}")
    if unexcused := [reply for reply in failed if reply not in excused]:
        seen = sorted({f"{reply.status} {reply.error}".strip() for reply in unexcused})
        since = story.killed.at if story.killed else story.began
        first, last = min(r.sent for r in unexcused) - since, max(r.sent for r in unexcused) - since
        when = f"sent {first:.2f} to {last:.2f} s after the {'kill' if story.killed else 'beginning'}"
        ended = f", the outage ended after {dead.end - dead.start:.2f} s" if dead else ""
        outcome.problems.append(f"{len(unexcused)} requests failed, {when}{ended}: {'; '.join(seen)[:300]}")
    outcome.problems += strays(replies, rows, story.shaken, outcome.stretch)
    late = [reply for reply in replies if reply.status == 200 and reply.sent >= story.settled]
    if others := {reply.version for reply in late} - {story.live}:
        outcome.problems.append(f"version {story.live} is live, and {sorted(others)} answered after all had settled")
    if not late and math.isfinite(story.settled):
        outcome.problems.append("nobody answered after all had settled")


@dataclass(frozen=True)
class Outage:
    """From when to when (Unix time) requests had nobody but the killed part to answer them.

    Attributes:
        share: which share of them.
        reason: what the gateway must give as its reason for a failure that is excused; None when it is dead itself.
    """

    start: float
    end: float
    share: float
    reason: str | None = None

    def excuses(self, reply: Reply) -> bool:
        """Whether the killed part had the request that failed."""
        return self._spans(reply) and self.reason in (None, reply.error)

    def most_lost(self, replies: Sequence[Reply]) -> float:
        """The share of the requests, with three standard deviations of a random choice per request."""
        asked = sum(self._spans(reply) for reply in replies)
        return asked * self.share + 3 * math.sqrt(asked * self.share * (1 - self.share))

    def _spans(self, reply: Reply) -> bool:
        return reply.done >= self.start and reply.sent <= self.end


def outage(
    killed: Killed | None, replies: Sequence[Reply], rows: Sequence[LedgerEntry], stretch: float = 1.0
) -> Outage | None:
    """When nobody could answer what the killed part had to answer; None when no failure is excused.

    A slot had what the gateway says it had: what reaches the gateway later is repeated by it until the slot is back, or
    goes to the other one. The gateway's own outage ends with its first answer to a request sent after its death.
    """
    if killed is None or (killed.slot is None and not killed.carried):
        return None
    if killed.slot is None:
        answered = (reply.done for reply in replies if reply.status == 200 and reply.sent >= killed.gone)
        longest = killed.gone + LONGEST_OUTAGE_SECONDS * stretch
        return Outage(killed.at, min(longest, min(answered, default=math.inf)), 1.0)
    # A shift's row is written before the act: the slot may have been killed between the two.
    by_time = _traffic_by_time(rows, killed.at, killed.gone)
    if not killed.carried and killed.slot not in by_time[0][1]:
        return None  # others answered, and had to go on doing so
    share = max((slots[killed.slot]["weight"] for _, slots in by_time if killed.slot in slots), default=100) / 100
    noticed = killed.gone + UNNOTICED_SECONDS
    given = (reply.sent for reply in replies if reply.error == BROKEN_OFF and killed.at <= reply.done <= noticed)
    return Outage(killed.at, max(given, default=killed.gone), share, BROKEN_OFF)


def strays(
    replies: Sequence[Reply],
    rows: Sequence[LedgerEntry],
    shaken: tuple[float, float] | None = None,
    stretch: float = 1.0,
) -> list[str]:
    """Answers of a version that had no traffic by the ledger while the request was under way.

    A shift is written before it is applied, hence a second of tolerance (times the stretch), of a clock that stands
    while nobody answers anything. While things were being shaken the one who applies it may not be the one who wrote
    it: then what had traffic when the shaking began may answer as well.
    """
    tolerance = TOLERANCE_SECONDS * stretch
    good = [reply for reply in replies if reply.status == 200]
    if not good:
        return []
    first, last = min(reply.sent for reply in good), max(reply.done for reply in good)
    start = min(first, shaken[0]) if shaken else first
    by_time = _traffic_by_time(rows, start - tolerance, last + tolerance)
    clock = _clock_without_standstills(replies)
    timeline = [(clock(at), {str(one["version"]) for one in slots.values()}) for at, slots in by_time]
    wrong: dict[str, list[str]] = {}
    for reply in good:
        since = reply.sent
        if shaken and shaken[0] <= reply.sent <= shaken[1]:
            since = shaken[0]
        allowed = set[str]()
        for (at, versions), (following, _) in pairwise([*timeline, (math.inf, set[str]())]):
            if at <= clock(reply.done) + tolerance and following > clock(since) - tolerance:
                allowed |= versions
        if reply.version not in allowed:
            wrong.setdefault(reply.version, []).append(f"{reply.sent - first:.2f}")
    return [
        f"version {version} answered {len(times)} requests while the ledger gave it no traffic, from {times[0]} s on"
        for version, times in sorted(wrong.items())
    ]


def _clock_without_standstills(replies: Sequence[Reply]) -> Callable[[float], float]:
    """Unix time less the times before it in which nobody answered anything: machine or gateway stood still."""
    answers = sorted(reply.done for reply in replies if reply.status)
    standstills = [(last, next_) for last, next_ in pairwise(answers) if next_ - last > STANDSTILL_SECONDS]
    return lambda at: at - sum(min(at, end) - start for start, end in standstills if at > start)


def _traffic_by_time(
    rows: Sequence[LedgerEntry], start: float, end: float
) -> list[tuple[float, dict[str, dict[str, Any]]]]:
    """What had traffic by the ledger at `start`, and from when on what else, up to `end`: (Unix time, by slot)."""
    before = sum(row.at.timestamp() <= start for row in rows)
    later = [number for number in range(before, len(rows)) if rows[number].event in (TRAFFIC, LIVE)]
    changes = [(rows[n].at.timestamp(), served(rows[: n + 1])) for n in later if rows[n].at.timestamp() <= end]
    return [(start, served(rows[:before])), *changes]


@dataclass(frozen=True)
class Before:
    """What a round must leave as it was, or change by one."""

    live: str
    promotions: int
    rollouts: int

    @classmethod
    def look(cls, releases: Releases, now: datetime) -> Before:
        rows = releases.parts.ledger.until(MODEL, now)
        return cls(releases.live(MODEL).version or "", _count(rows, LIVE), _count(rows, STARTED))


def _count(rows: Sequence[LedgerEntry], event: str) -> int:
    return sum(row.event == event for row in rows)


def broken(releases: Releases, before: Before, rollout: Rollout | None) -> list[str]:
    """Invariants that the survey does not know of, after a round's one rollout (None: a round without any)."""
    parts, problems = releases.parts, []
    after = Before.look(releases, parts.clock.now())
    promoted = rollout is not None and rollout.phase is Phase.LIVE
    if (more := after.promotions - before.promotions) != promoted:
        problems.append(f"{more} versions went live, {int(promoted)} had to")
    if (more := after.rollouts - before.rollouts) != (rollout is not None):
        problems.append(f"{more} rollouts began, {int(rollout is not None)} had to")
    expected = rollout.version if rollout is not None and promoted else before.live
    if after.live != expected:
        problems.append(f"version {after.live} is live after a round that had to end with {expected}")
    if rollout is None:
        return problems
    latest = parts.store.latest(MODEL)
    if latest is None or latest.id != rollout.id:
        problems.append(f"the newest rollout is {latest.id if latest else 'none'} instead of {rollout.id}")
    events = [row.event for row in parts.ledger.of_rollout(rollout.id)]
    ends = [event for event in events if event in ("live", "rolled_back", "aborted")]
    if events.count(STARTED) != 1 or ends != [str(rollout.phase)]:
        problems.append(f"the ledger's rows of the rollout are {events}")
    return problems
