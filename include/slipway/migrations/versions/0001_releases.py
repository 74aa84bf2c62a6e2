"""Packages, slots, traffic, rollouts, the append-only ledger and the decisions.

Written as SQL because the constraints are the point: at most one active rollout per model, weights that
always add up, a ledger that nobody can rewrite and that has no gaps.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE packages (
        model          text NOT NULL,
        version        text NOT NULL,
        bento_tag      text NOT NULL,
        path           text NOT NULL,
        digest         text NOT NULL,
        dataset_sha256 text,
        code_commit    text,
        evidence       jsonb NOT NULL DEFAULT '{}',
        created_at     timestamptz NOT NULL,
        PRIMARY KEY (model, version)
    )
    """,
    """
    CREATE TABLE slots (
        model           text NOT NULL,
        slot            text NOT NULL CHECK (slot IN ('blue', 'green')),
        port            integer NOT NULL UNIQUE CHECK (port BETWEEN 1 AND 65535),
        version         text,
        bento_tag       text,
        keep_warm_until timestamptz,
        drain_until     timestamptz,
        updated_at      timestamptz NOT NULL,
        PRIMARY KEY (model, slot)
    )
    """,
    """
    CREATE TABLE traffic (
        model         text PRIMARY KEY,
        blue          integer NOT NULL DEFAULT 0 CHECK (blue >= 0),
        green         integer NOT NULL DEFAULT 0 CHECK (green >= 0),
        live_slot     text CHECK (live_slot IN ('blue', 'green')),
        live_version  text,
        alias_version text,
        updated_at    timestamptz NOT NULL,
        CHECK (blue + green IN (0, 100)),
        CHECK ((live_slot IS NULL) = (live_version IS NULL))
    )
    """,
    """
    CREATE TABLE rollouts (
        id               text PRIMARY KEY,
        model            text NOT NULL,
        version          text NOT NULL,
        kind             text NOT NULL CHECK (kind IN ('release', 'rollback')),
        phase            text NOT NULL,
        step             integer NOT NULL DEFAULT 0 CHECK (step >= 0),
        slot             text NOT NULL CHECK (slot IN ('blue', 'green')),
        previous_slot    text CHECK (previous_slot IN ('blue', 'green')),
        previous_version text,
        policy           jsonb NOT NULL,
        actor            text NOT NULL,
        reason           text NOT NULL,
        dag_run          text,
        command          text CHECK (command IN ('abort', 'promote')),
        failure          text,
        baseline         jsonb NOT NULL DEFAULT '{}',
        checks           jsonb NOT NULL DEFAULT '[]',
        started_at       timestamptz NOT NULL,
        phase_since      timestamptz NOT NULL,
        confirmed_at     timestamptz,
        driven_at        timestamptz NOT NULL,
        finished_at      timestamptz,
        CHECK (slot IS DISTINCT FROM previous_slot)
    )
    """,
    "CREATE UNIQUE INDEX one_active_rollout ON rollouts (model) WHERE finished_at IS NULL",
    "CREATE INDEX rollouts_by_model ON rollouts (model, started_at DESC)",
    """
    CREATE TABLE ledger (
        seq        bigint PRIMARY KEY,
        at         timestamptz NOT NULL,
        model      text NOT NULL,
        event      text NOT NULL,
        version    text,
        slot       text CHECK (slot IN ('blue', 'green')),
        actor      text NOT NULL,
        reason     text NOT NULL,
        rollout_id text REFERENCES rollouts (id),
        detail     jsonb NOT NULL DEFAULT '{}'
    )
    """,
    "CREATE INDEX ledger_by_model ON ledger (model, at)",
    "CREATE INDEX ledger_by_rollout ON ledger (rollout_id)",
    # A rollout begins once and ends once, however often its driver is killed and run again.
    "CREATE UNIQUE INDEX one_begin ON ledger (rollout_id) WHERE event = 'started'",
    "CREATE UNIQUE INDEX one_end ON ledger (rollout_id) WHERE event IN ('live', 'rolled_back', 'aborted')",
    """
    CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'restrict_violation';
    END
    $$
    """,
    """
    CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()
    """,
    """
    CREATE TABLE decisions (
        key      text PRIMARY KEY,
        model    text NOT NULL,
        kind     text NOT NULL,
        verdict  text NOT NULL,
        reasons  jsonb NOT NULL DEFAULT '[]',
        evidence jsonb NOT NULL DEFAULT '{}',
        at       timestamptz NOT NULL
    )
    """,
    "CREATE INDEX decisions_by_model ON decisions (model, at DESC)",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
