"""Docker in memory, as far as the slot agent uses it, with faults that a test can switch on."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

from slipway.core.containers import LABELS, BentoContainer, Container, Image
from slipway.errors import RuntimeSlotError


class TwinEngine:
    """The `Engine` port; `base` is there from the start, and runs as `user`."""

    def __init__(self, base: str, user: str = "10001:10001") -> None:
        self.down = False
        self.unstartable: set[str] = set()  # names of containers whose network is gone
        self.calls: list[str] = []  # what changed something
        self.contexts: list[dict[str, bytes]] = []
        self._images: dict[str, Image] = {"base": Image("base", (base,), {}, user)}
        self._containers: dict[str, Container] = {}
        self.created: dict[str, BentoContainer] = {}

    def ping(self) -> None:
        if self.down:
            raise RuntimeSlotError("Docker does not answer; is it running?")

    # --- images ---------------------------------------------------------------------------------------------

    def image(self, reference: str) -> Image | None:
        self.ping()
        return next((one for one in self._images.values() if reference in (one.id, *one.tags)), None)

    def images(self) -> Sequence[Image]:
        self.ping()
        return [one for one in self._images.values() if LABELS.MODEL in one.labels]

    def build(self, context: Iterator[bytes]) -> Image:
        self.ping()
        sent = b"".join(context)
        with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
            files = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
        dockerfile = files["Dockerfile"].decode()
        base = self.image(dockerfile.split()[1])
        if base is None:
            raise RuntimeSlotError("Docker refuses to build an image: no such base")
        labels = {name: json.loads(value) for name, value in re.findall(r'(slipway\.\w+)=("[^"]*")', dockerfile)}
        built = Image(hashlib.sha256(sent).hexdigest(), (), labels, base.user, len(sent))
        self._images.setdefault(built.id, built)
        self.contexts.append(files)
        self.calls.append("build")
        return built

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        self.ping()
        name = f"{repository}:{tag}"
        for key, one in self._images.items():
            tags = tuple(existing for existing in one.tags if existing != name)
            self._images[key] = replace(one, tags=(*tags, name) if key == image_id else tags)
        self.calls.append(f"tag {name}")

    def remove_image(self, reference: str) -> None:
        self.ping()
        if any(made.image == reference for made in self.created.values()):
            raise RuntimeSlotError(f"Docker refuses to remove {reference}: a container uses it")
        found = self.image(reference)
        if found is not None:
            left = tuple(tag for tag in found.tags if tag != reference)
            self._images[found.id] = replace(found, tags=left)
            if not left:
                del self._images[found.id]
            self.calls.append(f"remove {reference}")

    def remove_unfinished(self) -> None:
        self.ping()
        self._images = {key: one for key, one in self._images.items() if one.tags or LABELS.MODEL not in one.labels}

    # --- containers -----------------------------------------------------------------------------------------

    def put(self, container: Container) -> None:
        """A container that somebody made: another's, or this agent's in a state of the test's choice."""
        self._containers[container.name] = container

    def containers(self) -> Sequence[Container]:
        self.ping()
        return [one for one in self._containers.values() if LABELS.SLOT in one.labels]

    def container(self, name: str) -> Container | None:
        self.ping()
        return self._containers.get(name)

    def create(self, wanted: BentoContainer) -> None:
        self.ping()
        if self.image(wanted.image) is None:
            raise RuntimeSlotError(f"Docker refuses to create {wanted.name}: no such image")
        if wanted.name not in self._containers:
            self.put(Container(wanted.name, "created", wanted.labels))
            self.created[wanted.name] = wanted
            self.unstartable.discard(wanted.name)
            self.calls.append(f"create {wanted.name}")

    def start(self, name: str) -> None:
        self.ping()
        there = self._containers.get(name)
        if there is None or name in self.unstartable:
            raise RuntimeSlotError(f"Docker refuses to start {name}: no such container or network")
        if not there.running:
            self.put(replace(there, state="running"))
            self.calls.append(f"start {name}")

    def stop(self, name: str, seconds: float) -> None:
        self.ping()
        there = self._containers.get(name)
        if there is not None and there.running:
            self.put(replace(there, state="exited"))
            self.calls.append(f"stop {name} in {seconds:g} s")

    def remove(self, name: str) -> None:
        self.ping()
        if self._containers.pop(name, None) is not None:
            self.created.pop(name, None)
            self.calls.append(f"remove {name}")
