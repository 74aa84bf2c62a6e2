"""Airflow's own login and permissions, as this plugin uses them; the only file of it that imports Airflow's server.

Who may read a model's workflows sees the model; who may change runs of `{model}_release` acts on it. With Airflow's
simple login that is: a viewer sees, a user, op or admin acts. Any other auth manager decides by the same two questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Request

__all__ = ["COOKIE", "AirflowUser", "login_url", "user_of"]

COOKIE = "_token"


@dataclass(frozen=True)
class AirflowUser:
    """Somebody with a valid session or token; `by_cookie` when the browser vouches for them."""

    name: str
    by_cookie: bool
    user: Any

    def sees(self, model: str | None = None) -> bool:
        """Whether they may read a model's workflows, or any at all."""
        return self._may("GET", model)

    def acts(self, model: str | None = None) -> bool:
        """Whether they may start and change releases of a model, or any at all."""
        return self._may("PUT", model)

    def _may(self, method: str, model: str | None) -> bool:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails

        entity = None if method == "GET" else DagAccessEntity.RUN
        details = DagDetails(id=f"{model}_release") if model else None
        manager = get_auth_manager()
        return bool(
            manager.is_authorized_dag(method=method, access_entity=entity, details=details, user=self.user)  # type: ignore[arg-type]
        )


async def user_of(request: Request) -> AirflowUser | None:
    """Who asks, by Airflow's bearer token or session cookie; None without either.

    Raises:
        HTTPException: 401 for one that has expired, 403 for one that is none of Airflow's.
    """
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi.security import HTTPAuthorizationCredentials

    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = None
    if scheme.lower() == "bearer" and token:
        bearer = HTTPAuthorizationCredentials(scheme=scheme, credentials=token)
    elif not request.cookies.get(COOKIE):
        return None
    user = await get_user(request, None, bearer)
    name = getattr(user, "get_name", lambda: None)() or user.get_id()
    return AirflowUser(str(name), bearer is None, user)


def login_url(request: Request) -> str:
    """Airflow's login page, which leads back to where the request was going."""
    from airflow.api_fastapi.app import get_auth_manager

    return str(get_auth_manager().get_url_login(next_url=str(request.url)))
