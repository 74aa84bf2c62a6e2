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

    def sample_traffic(self) -> None:
        """Keep the gateway's counters of this minute; those of yesterday go.

        Raises:
            GatewayError: the gateway does not answer.
        """
        state, now = self.releases.parts.gateway.observe(), now_utc()
        known = [(slot.model, slot.slot) for slot in self.releases.parts.store.slots()]
        counters = {(model, slot): state.of(model, slot) for model, slot in known}
        minute = now.replace(second=0, microsecond=0)
        self.samples.keep({key: (one.requests, one.errors) for key, one in counters.items()}, minute)
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
