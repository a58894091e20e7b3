"""Passwords that servers made, by grant: the key they are encrypted to, and what came back."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "grant_passwords",
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("modulus", sa.Text(), nullable=False),
        sa.Column("private_key", sa.Text(), nullable=True),
        sa.Column("password", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name="fk_grant_passwords_grant_id"),
        sa.PrimaryKeyConstraint("grant_id", name="pk_grant_passwords"),
    )


def downgrade() -> None:
    op.drop_table("grant_passwords")
