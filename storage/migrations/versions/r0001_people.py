"""People, their links and keys, what is used once, and sealed secrets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "assertions",
        _text("id"),
        sa.Column("until", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_assertions"),
    )
    op.create_index("ix_assertions_until", "assertions", ["until"])
    op.create_table(
        "deliveries",
        _text("key"),
        _text("subject"),
        sa.Column("at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_at", "deliveries", ["at"])
    op.create_table(
        "email_exceptions",
        _text("team_id"),
        _text("user_id"),
        _text("email"),
        _text("recorded_by"),
        _text("reason"),
        sa.Column("recorded_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("team_id", "user_id", name="pk_email_exceptions"),
    )
    op.create_table(
        "link_tickets",
        _text("token_hash"),
        _text("team_id"),
        _text("user_id"),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_link_tickets"),
    )
    op.create_index("ix_link_tickets_expires_at", "link_tickets", ["expires_at"])
    op.create_table(
        "logins",
        _text("relay_hash"),
        _text("request_id"),
        _text("browser_hash"),
        _text("provider"),
        _text("team_id"),
        _text("user_id"),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("relay_hash", name="pk_logins"),
        sa.UniqueConstraint("request_id", name="uq_logins_request_id"),
    )
    op.create_index("ix_logins_expires_at", "logins", ["expires_at"])
    op.create_table(
        "parked_requests",
        _text("id"),
        _text("team_id"),
        _text("user_id"),
        sa.Column("submission", sa.JSON(), nullable=False),
        sa.Column("parked_at", _INSTANT, nullable=False),
        sa.Column("lapses_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parked_requests"),
    )
    op.create_index("ix_parked_requests_lapses_at", "parked_requests", ["lapses_at"])
    op.create_index("ix_parked_requests_slack_user", "parked_requests", ["team_id", "user_id"])
    op.create_table(
        "people",
        _text("id"),
        _text("provider"),
        _text("subject"),
        _text("email"),
        _text("name"),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("groups_read_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
        sa.UniqueConstraint("provider", "subject", name="uq_people_provider_subject"),
    )
    op.create_index("ix_people_groups_read_at", "people", ["groups_read_at"])
    op.create_table(
        "sealed_secrets", _text("name"), _text("value"), sa.PrimaryKeyConstraint("name", name="pk_sealed_secrets")
    )
    op.create_table(
        "links",
        _text("team_id"),
        _text("user_id"),
        _text("person_id"),
        sa.Column("linked_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_links_person_id"),
        sa.PrimaryKeyConstraint("team_id", "user_id", name="pk_links"),
    )
    op.create_index("ix_links_person_id", "links", ["person_id"])
    op.create_table(
        "ssh_keys",
        _text("fingerprint"),
        _text("person_id"),
        _text("line"),
        sa.Column("added_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_ssh_keys_person_id"),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_ssh_keys"),
    )
    op.create_index("ix_ssh_keys_person_id", "ssh_keys", ["person_id"])


def downgrade() -> None:
    op.drop_table("ssh_keys")
    op.drop_table("links")
    op.drop_table("sealed_secrets")
    op.drop_table("people")
    op.drop_table("parked_requests")
    op.drop_table("logins")
    op.drop_table("link_tickets")
    op.drop_table("email_exceptions")
    op.drop_table("deliveries")
    op.drop_table("assertions")


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)
