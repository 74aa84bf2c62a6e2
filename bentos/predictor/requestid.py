"""Request ids: the client's UUID if it sent one, else a new UUID of version 7."""

from __future__ import annotations

import random
import time

__all__ = ["request_id"]

_random = random.Random()  # noqa: S311 - ids need to be distinct, not secret; seeded from the system at process start


def request_id(header: bytes | None) -> tuple[bytes, str]:
    """The id as 16 bytes and in its canonical spelling (RFC 9562), lower case.

    >>> request_id(b"0198C6B4-31B6-7BE2-9F0A-6A1B2C3D4E5F")[1]
    '0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e5f'
    """
    if header is not None and len(header) == 36:
        parsed = _parse(header)
        if parsed is not None:
            return parsed
    value = (
        ((time.time_ns() // 1_000_000) & 0xFFFFFFFFFFFF) << 80
        | 0x7 << 76
        | _random.getrandbits(12) << 64
        | 0x2 << 62
        | _random.getrandbits(62)
    )
    text = f"{value:032x}"
    return value.to_bytes(16, "big"), f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _parse(header: bytes) -> tuple[bytes, str] | None:
    try:
        text = header.decode("ascii").lower()
        raw = bytes.fromhex(text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:])
    except ValueError:
        return None
    # fromhex skips blanks, so the length tells whether all 32 digits were digits.
    if len(raw) != 16 or text[8] + text[13] + text[18] + text[23] != "----":
        return None
    return raw, text
