"""Requests with their grants and reviews, and what Slack shows of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "counters",
        _text("name"),
        sa.Column("value", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", _NUMBER, nullable=False),
        _text("team_id"),
        _text("user_id"),
        _text("text"),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "requests",
        _text("id"),
        _text("person_id"),
        _text("person_name"),
        _text("person_email"),
        _text("team_id"),
        _text("user_id"),
        sa.Column("servers", sa.JSON(), nullable=False),
        _text("reason"),
        sa.Column("duration", sa.Integer(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("submitted_at", _INSTANT, nullable=False),
        sa.Column("lapses_at", _INSTANT, nullable=False),
        sa.Column("source_ip", sa.Text(), nullable=True),
        _text("route"),
        _text("account"),
        _text("state"),
        sa.Column("cause", sa.Text(), nullable=True),
        _text("cause_detail"),
        sa.Column("decided_at", _INSTANT, nullable=True),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("ended_at", _INSTANT, nullable=True),
        sa.Column("due_at", _INSTANT, nullable=True),
        _text("problem"),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("shown_revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("show_after", _INSTANT, nullable=True),
        sa.CheckConstraint("account IN ('short_lived_user')", name=op.f("ck_requests_account")),
        sa.CheckConstraint(
            "cause IN ('completed', 'revoked', 'expired', 'cancelled', 'failed')", name=op.f("ck_requests_cause")
        ),
        sa.CheckConstraint("route IN ('session_manager')", name=op.f("ck_requests_route")),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'active', 'ending', 'ended', 'denied', 'cancelled', 'lapsed')",
            name=op.f("ck_requests_state"),
        ),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_requests_person_id"),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
    )
    op.create_index(
        "ix_requests_due",
        "requests",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_requests_leased",
        "requests",
        ["lease_owner"],
        postgresql_where=sa.text("lease_owner IS NOT NULL"),
        sqlite_where=sa.text("lease_owner IS NOT NULL"),
    )
    op.create_index("ix_requests_newest", "requests", ["submitted_at", "id"])
    op.create_index("ix_requests_person", "requests", ["person_id", "submitted_at"])
    op.create_index(
        "ix_requests_stale",
        "requests",
        ["submitted_at", "id"],
        postgresql_where=sa.text("shown_revision < revision"),
        sqlite_where=sa.text("shown_revision < revision"),
    )
    op.create_index("ix_requests_state", "requests", ["state", "submitted_at"])
    op.create_table(
        "grants",
        _text("id"),
        _text("request_id"),
        sa.Column("server", sa.JSON(), nullable=False),
        _text("state"),
        sa.Column("route", sa.JSON(), nullable=False),
        sa.Column("account", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("proof", sa.JSON(), nullable=False),
        _text("outcome"),
        sa.CheckConstraint("state IN ('provisioning', 'active', 'removing', 'removed')", name=op.f("ck_grants_state")),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_grants_request_id"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
    )
    op.create_index("ix_grants_request_id", "grants", ["request_id"])
    op.create_table(
        "posts",
        sa.Column("number", _NUMBER, nullable=False),
        _text("request_id"),
        _text("audience"),
        _text("recipient"),
        _text("stage"),
        _text("channel"),
        _text("ts"),
        sa.Column("shown_revision", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_at", _INSTANT, nullable=True),
        _text("problem"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_posts_request_id"),
        sa.PrimaryKeyConstraint("number", name="pk_posts"),
        sa.UniqueConstraint(
            "request_id", "audience", "recipient", "stage", name="uq_posts_request_id_audience_recipient_stage"
        ),
    )
    op.create_table(
        "reviews",
        sa.Column("number", _NUMBER, nullable=False),
        _text("request_id"),
        _text("person_id"),
        _text("person_name"),
        _text("person_email"),
        _text("team_id"),
        _text("user_id"),
        _text("verdict"),
        sa.Column("at", _INSTANT, nullable=False),
        _text("reason"),
        sa.Column("duration", sa.Integer(), nullable=True),
        sa.CheckConstraint("verdict IN ('approve', 'deny')", name=op.f("ck_reviews_verdict")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_reviews_person_id"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_reviews_request_id"),
        sa.PrimaryKeyConstraint("number", name="pk_reviews"),
        sa.UniqueConstraint("request_id", "person_id", name="uq_reviews_request_id_person_id"),
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('certificate_serial', 0)")


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_table("posts")
    op.drop_table("grants")
    op.drop_table("requests")
    op.drop_table("outbox")
    op.drop_table("counters")


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)
