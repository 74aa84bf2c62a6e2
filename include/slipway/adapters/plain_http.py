"""HTTP without TLS, as the parts of one installation speak it with each other."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

__all__ = ["plain_client"]


def plain_client(*, retries: int = 0, **options: Any) -> httpx.Client:
    """A client for addresses of this installation; other `options` are those of `httpx.Client`.

    It trusts no authority at all, so that none is loaded: that takes some 35 ms a client, and a rollback makes three.
    No proxy of the user's environment stands between the stack and its own machine.

    Args:
        retries: how often a connection that was refused is tried again.
    """
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(transport=httpx.HTTPTransport(verify=nobody, retries=retries), trust_env=False, **options)
