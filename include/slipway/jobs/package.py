"""Turn a registered version into a bento, and note on the version what was built."""

from __future__ import annotations

import logging

from slipway.errors import NotFoundError
from slipway.ports import Package, Packager, Registry

__all__ = ["package"]

_log = logging.getLogger(__name__)


def package(model: str, version: str | None, *, packager: Packager, registry: Registry) -> Package:
    """The verified bento of a version; building it again changes nothing.

    Args:
        version: None for the one with the alias `challenger`.

    Raises:
        NotFoundError: no such version, or no challenger.
        ArtefactError: the version's files are incomplete, or the build fails.
    """
    if version is None:
        challenger = registry.by_alias(model, "challenger")
        if challenger is None:
            raise NotFoundError(f"{model} has no challenger; run `slipway run {model}_train` or name a version")
        version = challenger.version
    built = packager.build(model, version)
    packager.verify(built)
    noted = {"slipway.bento_tag": built.bento_tag, "slipway.bento_digest": built.digest}
    missing = {key: value for key, value in noted.items() if registry.version(model, version).tags.get(key) != value}
    if missing:
        registry.tag(model, version, missing)
    _log.info("%s: version %s is packaged as %s", model, version, built.bento_tag)
    return built
