"""Builds the adapters from the settings and binds them to the jobs: the one face for DAGs, keeper, API and commands.

Everything is built when it is first used, so that a rollback needs neither MLflow nor Airflow and a command that only
reads the ledger opens nothing but Postgres. Results are plain JSON-able values; they travel through Airflow's XCom.
"""

from __future__ import annotations

from functools import lru_cache

from slipway.settings import load_settings
from slipway.wiring.acting import Acting
from slipway.wiring.edge import EdgeKeeping
from slipway.wiring.learning import Learning
from slipway.wiring.log import LogKeeping
from slipway.wiring.overview import Overview
from slipway.wiring.releasing import Releasing
from slipway.wiring.tending import Tending

__all__ = ["Wiring", "wiring"]


class Wiring(Learning, Releasing, LogKeeping, Overview, Tending, Acting, EdgeKeeping):
    """Slipway as built from one set of settings; each base class is one area's use cases."""


@lru_cache(maxsize=1)
def wiring() -> Wiring:
    """The wiring of this process, from its settings."""
    settings = load_settings()
    if settings.fault_hook is not None:
        from slipway.core.faults import install_file

        install_file(settings.fault_hook)
    return Wiring(settings)
