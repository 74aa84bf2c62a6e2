"""What the slot agent can be asked: a model, a version, a slot. No field names a path, a command or an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from slipway.core.containers import MODEL_MAX_LENGTH, MODEL_PATTERN, VERSION_PATTERN
from slipway.core.routes import SlotName

__all__ = ["BuildImage", "DrainSlot", "StartSlot", "StopSlot", "TrimImages"]

Model = Annotated[str, Field(pattern=MODEL_PATTERN, max_length=MODEL_MAX_LENGTH)]
Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(ge=0, le=600)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BuildImage(_Strict):
    """The image of a version's bento, whose files must have this digest."""

    model: Model
    version: Version
    digest: Digest


class StartSlot(BuildImage):
    """A version in a slot; `when_full` is the model's policy for a full prediction log."""

    slot: SlotName
    when_full: Literal["refuse", "serve"] = "refuse"
    rollout_id: Annotated[str, Field(pattern="^[0-9a-zA-Z-]{0,64}$")] = ""


class DrainSlot(_Strict):
    """The slot's bento ends by itself within `seconds`, or is killed; its container stays."""

    model: Model
    slot: SlotName
    seconds: Seconds


class StopSlot(DrainSlot):
    """As `DrainSlot`, and the container goes."""


class TrimImages(_Strict):
    """Images of the model that are neither among the newest nor used go."""

    model: Model
