"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

__all__ = ["Problem", "problem_body"]


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that is not answered with a prediction.

    `reason` is the label of `prediction_errors_total`; `detail` is read by the client and holds neither a
    path of this machine nor an internal message.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        errors: Sequence[dict[str, Any]] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.errors = errors
        self.headers = headers


def problem_body(problem: Problem, request_id: str) -> bytes:
    """The JSON document of one problem."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.reason,
        "request_id": request_id,
    }
    if problem.errors:
        document["errors"] = list(problem.errors)
    return msgspec.json.encode(document)
