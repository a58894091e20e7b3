"""The keys of the certificate authority: which there are, and which one is for what."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "authorities",
        _text("fingerprint"),
        _text("public_key"),
        _text("place"),
        _text("role"),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.CheckConstraint("role IN ('current', 'next', 'retired')", name=op.f("ck_authorities_role")),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_authorities"),
    )
    op.create_index(
        "uq_authorities_role",
        "authorities",
        ["role"],
        unique=True,
        postgresql_where=sa.text("role <> 'retired'"),
        sqlite_where=sa.text("role <> 'retired'"),
    )


def downgrade() -> None:
    op.drop_table("authorities")


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)
