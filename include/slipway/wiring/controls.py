"""Who asked for what: the audit of actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from slipway.errors import ConflictError, DataError, NotFoundError, SlipwayError
from slipway.wiring.adapters import Adapters
from slipway.wiring.facts import now_utc, plain

if TYPE_CHECKING:
    from slipway.adapters.postgres_actions import PostgresActions

__all__ = ["Controls"]

T = TypeVar("T")


class Controls(Adapters):
    """The audit rows of what was asked for."""

    @cached_property
    def actions(self) -> PostgresActions:
        from slipway.adapters.postgres_actions import PostgresActions

        return PostgresActions(self.database)

    def noted(
        self, action: str, model: str, detail: Mapping[str, Any], work: Callable[[], T], *, actor: str, via: str
    ) -> T:
        """Do something that somebody asked for, with a row in the audit before and its outcome after."""
        row = self.actions.ask(actor=actor, via=via, action=action, model=model, detail=detail, at=now_utc())
        try:
            done = work()
        except (ConflictError, DataError, NotFoundError) as error:
            self.actions.finish(row, "refused", str(error), now_utc())
            raise
        except SlipwayError as error:
            self.actions.finish(row, "failed", str(error), now_utc())
            raise
        except BaseException as error:
            self.actions.finish(row, "failed", type(error).__name__, now_utc())
            raise
        self.actions.finish(row, "done", "", now_utc())
        return done

    def recent_actions(self, model: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """What was asked for lately, the newest first."""
        return [dict(plain(row)) for row in self.actions.recent(model, limit)]
