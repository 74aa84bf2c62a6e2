"""Records of keys on a real Postgres, and how wiring brings them to the gateway's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from slipway.adapters.envoy import keys_are_published, publish_keys
from slipway.adapters.postgres import Database
from slipway.adapters.postgres_keys import PostgresKeys
from slipway.core.keys import digest_of_key, new_key
from slipway.errors import ConflictError, GatewayError, NotFoundError
from slipway.settings import Settings
from slipway.wiring import Wiring

pytestmark = pytest.mark.services
NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def test_a_key_is_kept_until_it_is_revoked_and_its_name_for_ever(database: Database) -> None:
    keys = PostgresKeys(database)
    key = new_key("shop", "text", ["predict"], at=NOW, by="me", expires_at=NOW + timedelta(days=3))
    keys.add(key)
    assert keys.all() == (key,)
    assert keys.by_digest(digest_of_key("text")) == key
    assert keys.by_digest(digest_of_key("other")) is None
    keys.revoke("shop", NOW)
    keys.revoke("shop", NOW + timedelta(days=1))
    assert [one.revoked_at for one in keys.all()] == [NOW]
    with pytest.raises(ConflictError, match="another name"):
        keys.add(new_key("shop", "text 2", ["predict"], at=NOW, by="me"))
    with pytest.raises(NotFoundError, match="keys: shop"):
        keys.revoke("ship", NOW)


@pytest.fixture
def slipway(database: Database, tmp_path: Path) -> Wiring:
    settings = Settings(
        home=tmp_path,
        predictions_need_key=True,
        control_key=SecretStr("the-control-key"),
        _env_file=None,  # type: ignore[call-arg]
    )
    made = Wiring(settings)
    made.__dict__["database"] = database
    return made


def test_the_gateway_learns_of_a_key_at_once_and_forgets_it_at_once(slipway: Wiring, tmp_path: Path) -> None:
    key = slipway.add_key("shop", ["predict"], days=1, actor="me")
    text = (tmp_path / "envoy" / "keys.json").read_text()
    assert keys_are_published(tmp_path / "envoy", needed=True)
    assert digest_of_key(key) in text
    assert digest_of_key("the-control-key") in text
    assert key not in text + json.dumps(slipway.api_keys())
    assert slipway.key_of(key) == {"name": "shop", "scopes": ["predict"], "per_minute": 60}
    assert (slipway.key_of("the-control-key") or {})["name"] == "control-api"
    assert not slipway.publish_keys()
    slipway.revoke_key("shop")
    assert digest_of_key(key) not in (tmp_path / "envoy" / "keys.json").read_text()
    assert slipway.key_of(key) is None
    assert slipway.api_keys()[0]["valid"] is False


def test_a_key_expires_at_the_gateway_also_when_the_certificate_cannot_be_had(slipway: Wiring, tmp_path: Path) -> None:
    ends = datetime.now(UTC) - timedelta(seconds=1)
    PostgresKeys(slipway.database).add(new_key("late", "k", ["predict"], at=NOW, by="me", expires_at=ends))
    publish_keys(tmp_path / "envoy", PostgresKeys(slipway.database).all(), needed=True)
    assert digest_of_key("k") in (tmp_path / "envoy" / "keys.json").read_text()
    missing = tmp_path / "missing.pem"
    slipway.settings = slipway.settings.model_copy(update={"tls": "files", "tls_cert": missing, "tls_key": missing})
    with pytest.raises(GatewayError, match=r"missing\.pem"):
        slipway.tend_gateway()
    assert digest_of_key("k") not in (tmp_path / "envoy" / "keys.json").read_text()
