"""HTTP as the parts of one installation speak it with each other: without TLS. Adapters import `httpx` from here."""

from __future__ import annotations

import ssl
import sys
from typing import Any

# Wherever rich is installed, httpx imports its own command-line program, which nobody runs here, and rich with it: a
# tenth of what `slipway rollback` takes. It is told that the program is missing, as it is where there is no rich.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402

__all__ = ["httpx", "plain_client"]


def plain_client(*, retries: int = 0, **options: Any) -> httpx.Client:
    """A client for addresses of this installation; other `options` are those of `httpx.Client`.

    It trusts no authority at all, so that none is loaded: that takes some 35 ms a client, and a rollback makes three.
    No proxy of the user's environment stands between the stack and its own machine.

    Args:
        retries: how often a connection that was refused is tried again.
    """
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(transport=httpx.HTTPTransport(verify=nobody, retries=retries), trust_env=False, **options)
