"""Keys of the gateway and the control API by name; only their digests are kept."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

CHANGES = (
    """
    CREATE TABLE api_keys (
        name       text PRIMARY KEY,
        sha256     text NOT NULL UNIQUE CHECK (sha256 ~ '^[0-9a-f]{64}$'),
        scopes     jsonb NOT NULL CHECK (jsonb_array_length(scopes) > 0),
        per_minute integer NOT NULL CHECK (per_minute > 0),
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz
    )
    """,
    "DROP TABLE IF EXISTS control_keys",  # made by 0003 and never written to
)


def upgrade() -> None:
    for statement in CHANGES:
        op.execute(statement)
