"""The error tree. Every error that a user can meet derives from `SlipwayError`.

A message is one line: what is wrong, then what to do about it. Adapters translate the errors of
foreign libraries into these; the command line prints the message and never a traceback.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "ConflictError",
    "DataError",
    "GatewayError",
    "NotFoundError",
    "QuarantineError",
    "RegistryError",
    "RolloutError",
    "RuntimeSlotError",
    "SlipwayError",
    "SpecError",
    "StackError",
    "StoreError",
]


class SlipwayError(Exception):
    """Base of all errors of Slipway; catch it to report any of them in one line."""


class SpecError(SlipwayError):
    """A fleet file is wrong. The message names the file and the field; correct the file."""


class StackError(SlipwayError):
    """The local stack cannot start or is not running. The message names the part; see `slipway doctor`."""


class DataError(SlipwayError):
    """Input data cannot be read or has the wrong shape. The message names the column or the file."""


class QuarantineError(DataError):
    """Data failed its validation and was set aside. Look at the report that the message names."""


class NotFoundError(SlipwayError):
    """A model, version, snapshot or rollout does not exist. The message lists what does."""


class ConflictError(SlipwayError):
    """The action contradicts what is running, for example a second rollout. Wait, or abort the first."""


class ArtefactError(SlipwayError):
    """A stored artefact is missing or its digest differs. Release another version or train again."""


class RegistryError(SlipwayError):
    """MLflow did not answer or refused. Check `slipway status mlflow` and its log."""


class StoreError(SlipwayError):
    """Postgres did not answer or refused. Check `slipway status postgres` and its log."""


class GatewayError(SlipwayError):
    """Envoy did not take or did not confirm a change. Check `slipway status envoy` and its log."""


class RuntimeSlotError(SlipwayError):
    """A slot could not be started, stopped or listed. The message names the slot and its log file."""


class RolloutError(SlipwayError):
    """A rollout ended without its version live. The message names the failed check."""
