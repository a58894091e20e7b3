"""The audit log, to which the database itself lets nobody do anything but append.

The owner of the tables can still drop the triggers: only a head of the chain kept elsewhere shows that.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_POSTGRES = (
    """
    CREATE FUNCTION audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$
    """,
    # For each statement, because no row trigger sees a TRUNCATE.
    """
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_refuse()
    """,
    # Also in a session that plays a replica (session_replication_role).
    "ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only",
)
_SQLITE = (
    """
    CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
    """,
    """
    CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
    """,
    # REPLACE deletes without firing the trigger above where recursive_triggers is off: stop it before it does.
    """
    CREATE TRIGGER audit_events_no_replace BEFORE INSERT ON audit_events
    WHEN NEW.sequence <= (SELECT max(sequence) FROM audit_events)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
    """,
)


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("sequence", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        _text("kind"),
        _text("actor"),
        _text("actor_name"),
        _text("request_id"),
        _text("server"),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_request", "audit_events", ["request_id", "sequence"])
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", _NUMBER, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.create_table(
        "audit_readers",
        _text("reader"),
        sa.Column("sequence", _NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("until", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("reader", name="pk_audit_readers"),
    )
    op.execute(
        sa.text("INSERT INTO audit_head (id, sequence, hash) VALUES (1, 0, :genesis)").bindparams(genesis="0" * 64)
    )
    for statement in _POSTGRES if _on_postgres() else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_readers")
    op.drop_table("audit_head")
    op.drop_table("audit_events")
    if _on_postgres():
        op.execute("DROP FUNCTION audit_events_refuse()")


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def _on_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
