"""The gateway's edge: keys, certificate and access log, and how our own commands come in."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from slipway.core.keys import PER_MINUTE, ApiKey, digest_of_key, main_key, new_key, valid_keys
from slipway.errors import SlipwayError
from slipway.stack import gateway
from slipway.wiring.adapters import Adapters
from slipway.wiring.facts import facts, now_utc

if TYPE_CHECKING:
    from slipway.adapters.postgres_keys import PostgresKeys

__all__ = ["EdgeKeeping"]


class EdgeKeeping(Adapters):
    """What stands between a caller and the bentos."""

    @property
    def _keys(self) -> PostgresKeys:
        from slipway.adapters.postgres_keys import PostgresKeys

        return PostgresKeys(self.database)

    def key_of(self, key: str) -> dict[str, Any] | None:
        """Name, scopes and allowance of a key that holds now; the one of `.env` may do everything. None if unknown."""
        main = main_key(self.settings.secret("control_key"))
        digest = digest_of_key(key)
        found = main if digest == main.sha256 else self._keys.by_digest(digest)
        if found is None or not found.is_valid(now_utc()):
            return None
        return {"name": found.name, "scopes": list(found.scopes), "per_minute": found.per_minute}

    def api_keys(self) -> list[dict[str, Any]]:
        """Every key on record by name, those that have ended included, without the keys themselves."""
        now = now_utc()
        rows = [(key, facts(key)) for key in self._keys.all()]
        return [
            {name: value for name, value in row.items() if name != "sha256"} | {"valid": key.is_valid(now)}
            for key, row in rows
        ]

    def add_key(
        self,
        name: str,
        scopes: Sequence[str],
        per_minute: int = PER_MINUTE,
        *,
        days: int | None = None,
        actor: str = "",
    ) -> str:
        """Draw a key, keep its digest and let the gateway know it; the key itself is shown this once.

        Raises:
            DataError: a scope cannot be used.
            ConflictError: the name cannot be used, or was before.
        """
        now = now_utc()
        key = f"slipway_{secrets.token_urlsafe(32)}"
        ends = now + timedelta(days=days) if days else None
        self._keys.add(new_key(name, key, scopes, at=now, by=actor, per_minute=per_minute, expires_at=ends))
        self.publish_keys()
        return key

    def revoke_key(self, name: str) -> None:
        """End a key, at the gateway at once.

        Raises:
            NotFoundError: no key of that name.
        """
        self._keys.revoke(name, now_utc())
        self.publish_keys()

    def _accepted_keys(self) -> tuple[ApiKey, ...]:
        return (main_key(self.settings.secret("control_key")), *valid_keys(self._keys.all(), now_utc()))

    def publish_keys(self) -> bool:
        """Bring the gateway's keys in line with the records; True when that was a change."""
        from slipway.adapters.envoy import publish_keys

        options = gateway.edge(self.settings)
        if not options.reads_keys:
            return False
        return publish_keys(self.settings.xds_dir, self._accepted_keys(), needed=options.need_key)

    def tend_gateway(self) -> list[str]:
        """What time does to a gateway: keys and certificates expire, and its log grows. Says what was done.

        Raises:
            SlipwayError: the first that failed; the others were done all the same.
        """
        works: dict[str, Callable[[], bool]] = {
            "the gateway's keys are those of the records again": self.publish_keys,
            "the gateway has a new certificate": lambda: gateway.refresh_certificate(self.settings),
            "the access log was turned over": self._rotate_access_log,
        }
        done: list[str] = []
        failed: list[SlipwayError] = []
        for told, work in works.items():
            try:
                if work():
                    done.append(told)
            except SlipwayError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return done

    def _rotate_access_log(self) -> bool:
        from slipway.adapters.access_log import rotate_access_log

        settings, log = self.settings, gateway.access_log(self.settings)
        if log is None or log == gateway.STDOUT:
            return False
        limits = settings.access_log_max_bytes, settings.access_log_files
        return rotate_access_log(log, *limits, settings.envoy_admin_uri)

    def gateway_client(self) -> dict[str, Any]:
        """Arguments for an httpx client that calls this installation's gateway: address, key, certificate to trust.

        The control key goes along only where a key is wanted and the user has set none of their own.
        """
        from slipway.adapters.certificate import trust_exactly

        settings = self.settings
        key = settings.api_key or (settings.control_key if settings.predictions_need_key else None)
        return {
            "base_url": settings.gateway_uri,
            "headers": {"x-api-key": key.get_secret_value()} if key else {},
            "verify": trust_exactly(gateway.trusted_certificate(settings)) if settings.tls != "off" else True,
            "trust_env": False,
            "timeout": 30.0,
        }
