"""Images of bentos: built from verified files, tagged when they are whole, and removed when they are old."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.agent.bento_context import bento_context
from slipway.agent.engine import Engine
from slipway.core.containers import LABELS, REPOSITORY, Image, image_name, model_and_version, superfluous
from slipway.core.faults import fault_point
from slipway.errors import RuntimeSlotError

__all__ = ["BentoImage", "Images"]

_log = logging.getLogger("slipway.agent")


@dataclass(frozen=True)
class BentoImage:
    """One image that is Slipway's; `used` by a container, running or not."""

    model: str
    version: str
    digest: str
    bytes: int
    used: bool


class Images:
    """Builds, lists and removes images.

    Args:
        bentos: BentoML's folder of bentos, `<model>/v<version>` below it.
        serving_image: what every one is built on.
        max_mb: a larger bento is refused.
    """

    def __init__(self, engine: Engine, bentos: Path, serving_image: str, max_mb: int) -> None:
        self._engine, self._bentos, self._base, self._max_mb = engine, bentos, serving_image, max_mb
        self._one_at_a_time = threading.RLock()  # what is built and has no name yet must not be cleared away
        self._held: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def held(self, model: str, version: str, digest: str) -> Iterator[Image]:
        """The image of a version, built unless there is one of this very bento; it stays for as long as it is held.

        An older version than those that stay would otherwise go before it has a container. A build that was cut off
        leaves an image without a name, which the next one clears away.

        Raises:
            ArtefactError: the bento is missing, too large, or differs from its digest.
            RuntimeSlotError: Docker refuses, or the serving image runs as root.
        """
        with self._one_at_a_time:
            self._held[model, version] += 1
        try:
            yield self._ensure(model, version, digest)
        finally:
            with self._one_at_a_time:
                self._held[model, version] -= 1

    def _ensure(self, model: str, version: str, digest: str) -> Image:
        with self._one_at_a_time:
            there = self._engine.image(image_name(model, version))
            if there is not None and there.labels.get(LABELS.DIGEST) == digest:
                return there
            made = self._build(model, version, digest)
            self.tidy(model)
            return made

    def _build(self, model: str, version: str, digest: str) -> Image:
        reference = image_name(model, version)
        if self._engine.image(self._base) is None:
            raise RuntimeSlotError(f"the serving image {self._base} is missing; build it with `docker compose build`")
        began = time.monotonic()
        labels = {LABELS.MODEL: model, LABELS.VERSION: version, LABELS.DIGEST: digest}
        folder = self._bentos / model / f"v{version}"
        built = self._engine.build(bento_context(folder, digest, self._base, labels, self._max_mb))
        self._check(built, labels)
        fault_point("image built")
        self._engine.tag(built.id, f"{REPOSITORY}/{model}", version)
        fault_point("image tagged")
        made = self._engine.image(reference)
        if made is None or made.id != built.id:
            raise RuntimeSlotError(f"{reference} is not what was built; is somebody else building it?")
        seconds = time.monotonic() - began
        _log.info("built %s from the bento with digest %s in %.1f s", reference, digest[:12], seconds)
        return made

    def _check(self, built: Image, labels: Mapping[str, str]) -> None:
        if any(built.labels.get(name) != value for name, value in labels.items()):
            raise RuntimeSlotError(f"Docker built another image than it was asked for ({built.id[:19]})")
        if built.runs_as_root:
            raise RuntimeSlotError(f"the serving image {self._base} runs as root; give it a USER")

    def list(self) -> Sequence[BentoImage]:
        """Every image by its name."""
        used = self._used()
        found = []
        for image in self._engine.images():
            for tag in image.tags:
                if names := model_and_version(tag):
                    digest = image.labels.get(LABELS.DIGEST, "")
                    found.append(BentoImage(*names, digest, image.bytes, names in used))
        return sorted(found, key=lambda one: (one.model, int(one.version)))

    def trim(self, model: str) -> Sequence[str]:
        """Remove what is neither among the newest nor used nor held; the names that went."""
        with self._one_at_a_time:
            mine = [image for image in self.list() if image.model == model]
            used = {image.version for image in mine if image.used or self._held[model, image.version]}
            gone = [image_name(model, version) for version in superfluous([image.version for image in mine], used)]
            for reference in gone:
                self._engine.remove_image(reference)
                _log.info("removed %s", reference)
            self._engine.remove_unfinished()
        return gone

    def tidy(self, model: str) -> None:
        """`trim` after something else was done: what cannot go now goes the next time."""
        try:
            self.trim(model)
        except RuntimeSlotError as error:
            _log.warning("old images of %s stay for now: %s", model, error)

    def _used(self) -> set[tuple[str, str]]:
        labels = [container.labels for container in self._engine.containers()]
        return {(label.get(LABELS.MODEL, ""), label.get(LABELS.VERSION, "")) for label in labels}
