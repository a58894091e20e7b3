"""The chain's head moves with the log: the database itself lets an event in at the head only.

One statement less for every change, and no version of Passport can leave head and log apart.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_POSTGRES = (
    """
    CREATE FUNCTION audit_events_move_head() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
        UPDATE audit_head SET sequence = NEW.sequence, hash = NEW.hash
        WHERE sequence = NEW.sequence - 1 AND hash = NEW.previous;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the audit log is append-only, after its head'
            USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER audit_events_head AFTER INSERT ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_events_move_head()
    """,
    # Also in a session that plays a replica (session_replication_role).
    "ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_head",
)
_SQLITE = (
    """
    CREATE TRIGGER audit_events_head_only BEFORE INSERT ON audit_events
    WHEN NOT EXISTS (SELECT 1 FROM audit_head WHERE sequence = NEW.sequence - 1 AND hash = NEW.previous)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only, after its head'); END
    """,
    """
    CREATE TRIGGER audit_events_head AFTER INSERT ON audit_events
    BEGIN UPDATE audit_head SET sequence = NEW.sequence, hash = NEW.hash; END
    """,
)


def upgrade() -> None:
    for statement in _POSTGRES if _on_postgres() else _SQLITE:
        op.execute(sa.text(statement))


def downgrade() -> None:
    if _on_postgres():
        op.execute("DROP TRIGGER audit_events_head ON audit_events")
        op.execute("DROP FUNCTION audit_events_move_head()")
    else:
        op.execute("DROP TRIGGER audit_events_head")
        op.execute("DROP TRIGGER audit_events_head_only")


def _on_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
