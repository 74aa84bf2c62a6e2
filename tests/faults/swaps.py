"""Many swaps in a row under load: no failed request, nothing answered by a slot without weight, and how slow it gets.

`python -m faults.swaps --swaps 200 --rate 300` is the acceptance run (`make faults-swaps`).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import median

from faults.judging import too_few
from faults.results import begin, update_result
from faults.whole_stack import ROW, FaultStack
from loop.open_load import OpenLoad, Reply

_BLOCK = 10  # swaps
_SETTLE_SECONDS, _QUIET_SECONDS = 2.0, 2.0
_PAUSE_SECONDS = 0.25
_HIGHEST_RATIO = 2.0


@dataclass
class Swaps:
    """What a run of swaps came to; `problems` must be empty."""

    swaps: int
    failed_requests: int
    answered_without_weight: int
    swaps_that_failed: int
    requests: int
    p99_quiet_ms: float
    p99_swapping_ms: float
    ratios: list[float]  # of each block's p99 to that of the quiet times before and after it
    ratio: float  # their median
    longest_swap_seconds: float
    median_swap_seconds: float
    problems: list[str] = field(default_factory=list)


def p99_ms(replies: Sequence[Reply], within: Sequence[tuple[float, float]]) -> float:
    """The 99th percentile of the answered ones that were sent in these times (Unix)."""
    sent = [reply for reply in replies if any(start <= reply.sent < end for start, end in within)]
    found = sorted(reply.seconds for reply in sent if reply.status == 200)
    return round(1000 * found[math.ceil(0.99 * len(found)) - 1], 2) if found else 0.0


def swaps(stack: FaultStack, count: int, rate: float, *, judge_latency: bool = True) -> bool:
    """Swap the two warm versions `count` times; whether everything held.

    The swaps come in blocks between quiet times, and each block is compared with the two beside it: slow minutes of the
    machine last longer than that, and the median of the blocks' ratios leaves out those in which one began or ended.

    Args:
        judge_latency: whether the ratio counts; in a short run on a busy machine it is told only.
    """
    stack.say(begin("swaps", fresh=True, keys=[str(count)]))
    releases = stack.slipway.releases
    if stack.slipway.releases.live("iris").version == "1":
        stack.cli("release", "iris", "--version", "2")  # so that there are two warm slots
    times: list[tuple[float, float, str]] = []
    quiet: list[tuple[float, float]] = []
    failed = 0
    started = time.time()
    with OpenLoad(stack.settings.gateway_port, "iris", ROW, rate=rate) as load:
        time.sleep(2.0)
        for number in range(count):
            if number % _BLOCK == 0:
                quiet.append(_quiet_time())
            target = "1" if releases.live("iris").version == "2" else "2"
            began = time.time()
            done = releases.rollback("iris", target, actor="faults", reason=f"swap {number + 1}")
            times.append((began, time.time(), target))
            failed += done.what != "rolled_back" or not done.warm
            time.sleep(_PAUSE_SECONDS)
        quiet.append(_quiet_time())
        seconds = time.time() - started
    replies = sorted(load.replies, key=lambda reply: reply.sent)
    result = _result(times, quiet, failed, replies)
    result.problems = wrong(result, replies, rate, seconds, judge_latency=judge_latency)
    update_result("swaps", str(count), lambda _: asdict(result))
    stack.say(f"swaps: {asdict(result)}")
    return not result.problems


def _quiet_time() -> tuple[float, float]:
    """Let what came before settle, then do nothing for a while; from when to when that was (Unix)."""
    time.sleep(_SETTLE_SECONDS)
    began = time.time()
    time.sleep(_QUIET_SECONDS)
    return began, time.time()


def wrong(
    result: Swaps, replies: Sequence[Reply], rate: float, seconds: float, *, judge_latency: bool = True
) -> list[str]:
    """What a run of swaps must not have come to."""
    counted = {
        "requests failed": result.failed_requests,
        "requests were answered by a slot without weight": result.answered_without_weight,
        "swaps failed": result.swaps_that_failed,
    }
    problems = [f"{number} {what}" for what, number in counted.items() if number]
    problems += too_few(replies, rate, seconds)
    if judge_latency and not 0 < result.ratio <= _HIGHEST_RATIO:
        problems.append(f"p99 while swapping is {result.ratio:g} times that of the quiet times")
    return problems


def _result(
    times: Sequence[tuple[float, float, str]],
    quiet: Sequence[tuple[float, float]],
    failed: int,
    replies: Sequence[Reply],
) -> Swaps:
    stray = 0
    for (_, swapped, target), (following, _, _) in zip(times, [*times[1:], (math.inf, 0.0, "")], strict=True):
        # What was sent in good time and answered after the next swap had begun may rightly be the next one's answer.
        between = [r for r in replies if swapped <= r.sent and r.done < following]
        stray += sum(r.status == 200 and r.version != target for r in between)
    swapping = [(began, swapped + _PAUSE_SECONDS) for began, swapped, _ in times]
    ratios = []
    for before, after in pairwise(quiet):
        block = [one for one in swapping if before[1] <= one[0] < after[0]]
        beside_ms = p99_ms(replies, [before, after])
        ratios.append(round(p99_ms(replies, block) / beside_ms, 2) if beside_ms else 0.0)
    taken = sorted(swapped - began for began, swapped, _ in times)
    return Swaps(
        swaps=len(times),
        failed_requests=sum(reply.status != 200 for reply in replies),
        answered_without_weight=stray,
        swaps_that_failed=failed,
        requests=len(replies),
        p99_quiet_ms=p99_ms(replies, quiet),
        p99_swapping_ms=p99_ms(replies, swapping),
        ratios=ratios,
        ratio=round(median(ratios), 2),
        longest_swap_seconds=round(taken[-1], 2),
        median_swap_seconds=round(taken[len(taken) // 2], 2),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=300.0, help="requests per second")
    chosen = parser.parse_args()
    with FaultStack().running(versions=2) as stack:
        held = swaps(stack, chosen.swaps, chosen.rate)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
