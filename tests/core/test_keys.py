from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from slipway.core.keys import MAIN_KEY, SCOPES, digest_of_key, main_key, new_key, valid_keys
from slipway.errors import ConflictError, DataError

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_a_key_is_kept_as_a_digest() -> None:
    key = new_key("shop", "text", ["feedback", "predict"], at=NOW, by="me")
    assert key.scopes == ("predict", "feedback")
    assert "text" not in repr(key)
    assert key.sha256 == digest_of_key("text") != digest_of_key("text ")


def test_expired_and_revoked_keys_hold_no_more() -> None:
    short = new_key("short", "a", ["predict"], at=NOW, by="me", expires_at=NOW + timedelta(days=1))
    assert valid_keys([short], NOW + timedelta(hours=23)) == (short,)
    assert valid_keys([short], NOW + timedelta(days=1)) == ()
    ended = new_key("ended", "b", ["predict"], at=NOW, by="me")
    assert valid_keys([ended, short], NOW) == (ended, short)
    assert valid_keys([type(ended)(**{**vars(ended), "revoked_at": NOW})], NOW) == ()


@pytest.mark.parametrize("name", ["", MAIN_KEY, "Shop", "a b", 'x"', "-x", "x" * 64])
def test_names_are_words_that_need_no_escape(name: str) -> None:
    with pytest.raises(ConflictError, match="no name for a key"):
        new_key(name, "text", ["predict"], at=NOW, by="me")


@pytest.mark.parametrize("scopes", [[], ["admin"], ["predict", "all"]])
def test_scopes_are_those_that_exist(scopes: list[str]) -> None:
    with pytest.raises(DataError, match="the scopes are predict, feedback, read"):
        new_key("shop", "text", scopes, at=NOW, by="me")


def test_the_main_key_may_do_everything() -> None:
    assert main_key("k").scopes == SCOPES
