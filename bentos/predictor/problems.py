"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

__all__ = ["Problem", "as_problem", "overload", "problem_body"]

logger = logging.getLogger("predictor")


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


def as_problem(error: Exception, request_id: str) -> Problem:
    """What the client is told of an error; an unexpected one is logged here and stays here."""
    if isinstance(error, Problem):
        return error
    logger.error("request %s failed", request_id, exc_info=error)
    return Problem(500, "internal", "an internal error; it was logged")


def overload(detail: str) -> Problem:
    """429, to be tried again soon."""
    return Problem(429, "overload", detail, headers=[(b"retry-after", b"1")])


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
