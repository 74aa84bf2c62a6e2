"""The slot agent as its clients see it: one HTTP call per verb, errors as Slipway's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slipway.adapters.plain_http import httpx
from slipway.errors import ArtefactError, ConflictError, RuntimeSlotError, SlipwayError

__all__ = ["SlotAgent"]

_KINDS: dict[str, type[SlipwayError]] = {"ArtefactError": ArtefactError, "ConflictError": ConflictError}


class SlotAgent:
    """Asks the slot agent.

    Args:
        timeout_seconds: for an answer, beyond what the call itself may take.
    """

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 30.0) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self._seconds = timeout_seconds
        self._client = httpx.Client(base_url=url, headers=headers, trust_env=False)

    def get(self, path: str) -> Any:
        """Read something; see `post`."""
        return self._ask("GET", path, None, 0.0)

    def post(self, path: str, body: Mapping[str, Any], *, takes_seconds: float = 0.0) -> Any:
        """Have something done; every verb may be repeated.

        Raises:
            ArtefactError: the bento is missing or damaged.
            ConflictError: a container of that name is somebody else's.
            RuntimeSlotError: the agent or Docker does not answer, or refuses.
        """
        return self._ask("POST", path, body, takes_seconds)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, takes_seconds: float) -> Any:
        timeout = httpx.Timeout(self._seconds + takes_seconds, connect=5.0)
        try:
            answer = self._client.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            message = f"the slot agent does not answer ({type(error).__name__}); check its container and its log"
            raise RuntimeSlotError(message) from error
        if answer.status_code == httpx.codes.OK:
            return answer.json()
        try:
            told = answer.json()
            detail, kind = str(told["detail"]), str(told.get("kind", ""))
        except (ValueError, KeyError, TypeError):
            detail, kind = "is something else listening at its address?", ""
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            detail = "the token is another one than the agent's; give both the same SLIPWAY_AGENT_TOKEN"
        raise _KINDS.get(kind, RuntimeSlotError)(f"slot agent ({answer.status_code}): {detail}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
