"""Slots and packages where bentos run in containers: the runtime and the packager over the slot agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slipway.adapters.slot_agent import SlotAgent
from slipway.errors import ArtefactError, ConflictError, RuntimeSlotError
from slipway.ports import Package, Packager, Slot

__all__ = ["DockerRuntime", "ImagePackager"]

_BUILD_SECONDS = 120.0


class DockerRuntime:
    """The `SlotRuntime` port.

    Args:
        when_full: what a model's bento does when the prediction log is full, given the model.
    """

    def __init__(self, agent: SlotAgent, when_full: Callable[[str], str]) -> None:
        self._agent, self._when_full = agent, when_full

    def start(self, slot: Slot, package: Package) -> None:
        """Run the package in the slot; what runs there already, and is the same, is left alone.

        Raises:
            RuntimeSlotError: the agent does not answer or refuses.
        """
        wish = {
            **_image(package),
            "slot": slot.slot,
            "when_full": self._when_full(slot.model),
            "rollout_id": slot.rollout_id or "",
        }
        try:
            self._agent.post("/slots/start", wish, takes_seconds=_BUILD_SECONDS)
        except (ArtefactError, ConflictError) as error:
            raise RuntimeSlotError(str(error)) from error

    def stop(self, slot: Slot, drain_seconds: float) -> None:
        """Stop the slot: asked to end, and killed if it has not after `drain_seconds`; its container goes too.

        Raises:
            RuntimeSlotError: the agent does not answer or refuses.
        """
        wish = {"model": slot.model, "slot": slot.slot, "seconds": float(drain_seconds)}
        try:
            self._agent.post("/slots/stop", wish, takes_seconds=drain_seconds)
        except ConflictError as error:
            raise RuntimeSlotError(str(error)) from error

    def list(self) -> Sequence[Slot]:
        """Every slot that has a container.

        Raises:
            RuntimeSlotError: the agent does not answer.
        """
        return [
            Slot(
                model=one["model"],
                slot=one["slot"],
                port=one["port"],
                version=one["version"],
                bento_tag=f"{one['model']}:v{one['version']}",
                running=one["running"],
                host=one["host"],
            )
            for one in self._agent.get("/slots")["slots"]
        ]


class ImagePackager:
    """The `Packager` port: a package is a bento, and the image that was made of it."""

    def __init__(self, bentos: Packager, agent: SlotAgent) -> None:
        self._bentos, self._agent = bentos, agent

    def build(self, model: str, version: str) -> Package:
        """The bento of a version and its image; what exists is used as it is.

        Raises:
            NotFoundError: no such version.
            ArtefactError: its files are incomplete, or a build fails.
            RuntimeSlotError: the agent does not answer.
        """
        package = self._bentos.build(model, version)
        self._agent.post("/images/build", _image(package), takes_seconds=_BUILD_SECONDS)
        return package

    def verify(self, package: Package) -> None:
        """Compare the bento's files with its digest; the agent builds from nothing else."""
        self._bentos.verify(package)


def _image(package: Package) -> dict[str, str]:
    return {"model": package.model, "version": package.version, "digest": package.digest}
