"""What the keeper does for the cockpit: it keeps traffic by the minute, and answers Airflow's questions."""

from __future__ import annotations

from datetime import timedelta

from slipway.errors import ConflictError, NotFoundError
from slipway.wiring.cockpit import Cockpit
from slipway.wiring.facts import now_utc

__all__ = ["Tending"]

_KEEP_SAMPLES = timedelta(hours=26)
_OLDEST_QUESTION, _QUESTION_COMES_WITHIN = timedelta(days=3), timedelta(minutes=10)


class Tending(Cockpit):
    """Rounds that are repeated every few seconds."""

    def sample_traffic(self, idle: dict[tuple[str, str], tuple[int, int]]) -> None:
        """Keep the gateway's counters of this minute, of slots that have traffic; those of yesterday go.

        Copies of traffic are none: what a slot counts while it is only mirrored to is left out.

        Args:
            idle: what each slot without any requests had counted; the caller keeps it between two looks.

        Raises:
            GatewayError: the gateway does not answer.
        """
        state, now = self.releases.parts.gateway.observe(), now_utc()
        began: dict[tuple[str, str], tuple[int, int]] = {}
        counters: dict[tuple[str, str], tuple[int, int]] = {}
        for row in self.releases.parts.store.slots():
            key, one = (row.model, row.slot), state.of(row.model, row.slot)
            counted = (one.requests, one.errors)
            if state.weights.get(row.model, {}).get(row.slot):
                if key in idle:
                    began[key] = idle.pop(key)
                counters[key] = counted
            elif state.shadows.get(row.model, {}).get(row.slot):
                idle.pop(key, None)
            else:
                if key not in idle:  # its last answers, given since the last look
                    counters[key] = counted
                idle[key] = counted
        minute = now.replace(second=0, microsecond=0)
        self.samples.keep(began, minute - timedelta(minutes=1))
        self.samples.keep(counters, minute)
        self.samples.forget(now - _KEEP_SAMPLES)

    def settle_questions(self, settled: set[str]) -> None:
        """Answer in Airflow what a person answered elsewhere or what has ended, so that no run waits in vain.

        Args:
            settled: what was done already, and what is done now; the caller keeps it.

        Raises:
            StackError: Airflow does not answer.
        """
        now = now_utc()
        for row in self.cockpit.answered(now - _OLDEST_QUESTION):
            key = f"{row['id']} {row['approval_asked_at']}"
            if key in settled:
                continue
            option = "Approve" if row["approved"] else "Reject"
            try:
                self.airflow.answer(f"{row['model']}_release", row["dag_run"], "approve", option)
            except ConflictError:
                pass  # it was answered there
            except NotFoundError:
                # The task may not have begun to ask.
                if row["finished_at"] is None or row["finished_at"] > now - _QUESTION_COMES_WITHIN:
                    continue
            settled.add(key)
