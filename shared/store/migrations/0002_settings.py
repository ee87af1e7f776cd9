"""What people have set, as each service sees it: stores, stops, wave releases, API keys."""

from alembic import op

revision = "platform_0002"
down_revision = "platform_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().config.attributes["schema"]
    op.execute(
        f"""
        CREATE TABLE {schema}.settings (
            key text PRIMARY KEY,
            type text NOT NULL,
            time_us bigint NOT NULL,
            source text NOT NULL,
            id text NOT NULL,
            body jsonb NOT NULL
        )
        """
    )
    op.execute(f"CREATE INDEX settings_type ON {schema}.settings (type)")
