"""Slots as containers. What a slot should be is written in its container's labels; every verb can be repeated."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from slipway.agent.bento_context import COMMAND
from slipway.agent.engine import Engine
from slipway.agent.images import Images
from slipway.agent.requests import DrainSlot, StartSlot
from slipway.core.containers import LABELS, PORT, BentoContainer, Container, container_name, is_slots
from slipway.core.faults import fault_point
from slipway.errors import ConflictError, RuntimeSlotError
from slipway.settings import Settings

__all__ = ["SPOOL_DIR", "SlotState", "Slots"]

_log = logging.getLogger("slipway.agent")
SPOOL_DIR = PurePosixPath("/var/lib/slipway/spool")
_REPLACED_SECONDS = 20.0


@dataclass(frozen=True)
class SlotState:
    """One slot as its container shows it."""

    model: str
    slot: str
    version: str
    digest: str
    rollout_id: str
    state: str
    running: bool
    host: str
    port: int = PORT


class Slots:
    """Starts, drains, stops and lists bento containers."""

    def __init__(self, engine: Engine, images: Images, settings: Settings) -> None:
        self._engine, self._images, self._settings = engine, images, settings
        self._locks: Mapping[str, threading.Lock] = defaultdict(threading.Lock)

    def start(self, wish: StartSlot) -> SlotState:
        """Run the version in the slot; what runs there already, and is the same, is left alone.

        Raises:
            ArtefactError: its bento is missing or differs from its digest.
            ConflictError: a container of that name is not Slipway's.
            RuntimeSlotError: Docker refuses.
        """
        with self._locks[wish.model], self._images.held(wish.model, wish.version, wish.digest):
            wanted = self._wanted(wish)
            there = self._own(wanted.name)
            if there is not None and not _can_stay(there, wanted):
                self._engine.stop(wanted.name, _REPLACED_SECONDS)
                self._engine.remove(wanted.name)
                there = None
            if there is None or there.state not in ("running", "restarting"):
                self._bring_up(wanted, there)
                _log.info("started %s version %s for rollout %s", wanted.name, wish.version, wish.rollout_id or "-")
            return self._read_back(wanted)

    def _bring_up(self, wanted: BentoContainer, there: Container | None) -> None:
        if there is not None:
            try:
                self._engine.start(wanted.name)
                return
            except RuntimeSlotError as error:
                # Made for a network or a volume that was removed and made again since: of no use any more.
                _log.warning("%s cannot start as it is and is made anew: %s", wanted.name, error)
                self._engine.remove(wanted.name)
        self._engine.create(wanted)
        fault_point("container created")
        self._engine.start(wanted.name)
        fault_point("container started")

    def _read_back(self, wanted: BentoContainer) -> SlotState:
        there = self._own(wanted.name)
        if there is None or there.labels.get(LABELS.INTENT) != wanted.intent:
            raise RuntimeSlotError(f"{wanted.name} is not what was started; is another agent at work?")
        return _state(there)

    def drain(self, wish: DrainSlot) -> None:
        """Let the bento finish what it works on; it is killed if it has not ended in time. Its container stays."""
        with self._locks[wish.model]:
            name = container_name(wish.model, wish.slot)
            if self._own(name) is not None:
                self._engine.stop(name, wish.seconds)
                _log.info("drained %s", name)

    def stop(self, wish: DrainSlot) -> None:
        """Drain the slot and remove its container."""
        with self._locks[wish.model]:
            name = container_name(wish.model, wish.slot)
            if self._own(name) is not None:
                self._engine.stop(name, wish.seconds)
                fault_point("container stopped")
                self._engine.remove(name)
                _log.info("removed %s", name)
            self._images.tidy(wish.model)

    def list(self) -> Sequence[SlotState]:
        """Every slot that has a container, running or not."""
        found = [container for container in self._engine.containers() if is_slots(container)]
        return [_state(one) for one in sorted(found, key=lambda one: one.name)]

    def _own(self, name: str) -> Container | None:
        there = self._engine.container(name)
        if there is not None and not is_slots(there):
            raise ConflictError(f"the container {name} is not Slipway's; remove or rename it")
        return there

    def _wanted(self, wish: StartSlot) -> BentoContainer:
        settings = self._settings
        environment = {
            **settings.predictor_environment(SPOOL_DIR, wish.when_full),
            "SLIPWAY_MODEL": wish.model,
            "SLIPWAY_VERSION": wish.version,
            "SLIPWAY_SLOT": wish.slot,
            "SLIPWAY_BENTO_DIGEST": wish.digest,
            # All that can be written is /tmp and the spool.
            "HOME": "/tmp",  # noqa: S108
            "BENTOML_HOME": "/tmp/bentoml",  # noqa: S108
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        return BentoContainer(
            model=wish.model,
            version=wish.version,
            slot=wish.slot,
            digest=wish.digest,
            command=COMMAND,
            environment=environment,
            network=settings.serving_network,
            spool_volume=settings.spool_volume,
            memory_mb=settings.bento_memory_mb,
            pids=settings.bento_pids,
            rollout_id=wish.rollout_id,
        )


def _can_stay(there: Container, wanted: BentoContainer) -> bool:
    usable = there.state in ("created", "running", "restarting", "exited")
    return usable and there.labels.get(LABELS.INTENT) == wanted.intent


def _state(container: Container) -> SlotState:
    label = container.labels
    return SlotState(
        model=label[LABELS.MODEL],
        slot=label[LABELS.SLOT],
        version=label.get(LABELS.VERSION, ""),
        digest=label.get(LABELS.DIGEST, ""),
        rollout_id=label.get(LABELS.ROLLOUT, ""),
        state=container.state,
        running=container.running,
        host=container.name,
    )
