"""What every service has: offsets, outbox, timers, dead letters. Runs once in each service's schema."""

from alembic import op

revision = "platform_0001"
down_revision = None
branch_labels = ("platform",)
depends_on = None


def upgrade() -> None:
    schema = op.get_context().config.attributes["schema"]
    op.execute(
        f"""
        CREATE TABLE {schema}.offsets (
            topic text NOT NULL,
            partition int NOT NULL,
            next bigint,
            epoch bigint NOT NULL DEFAULT 0,
            halted text,
            accepted_until bigint NOT NULL DEFAULT 0,
            applied_until timestamptz,
            PRIMARY KEY (topic, partition)
        ) WITH (fillfactor = 50)
        """
    )
    op.execute(
        f"""
        CREATE TABLE {schema}.outbox (
            shard smallint NOT NULL,
            id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
            topic text NOT NULL,
            key bytea,
            value bytea,
            headers text NOT NULL,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (shard, id)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
        """
    )
    op.execute(f"CREATE TABLE {schema}.timers (key text PRIMARY KEY, due_at timestamptz NOT NULL)")
    op.execute(f"CREATE INDEX timers_due ON {schema}.timers (due_at, key)")
    op.execute(
        f"""
        CREATE TABLE {schema}.dead_letters (
            id uuid PRIMARY KEY,
            topic text NOT NULL,
            partition int NOT NULL,
            "offset" bigint NOT NULL,
            field text NOT NULL,
            reason text NOT NULL,
            sealed bytea NOT NULL,
            at timestamptz NOT NULL,
            retried_at timestamptz
        )
        """
    )
    op.execute(f"CREATE INDEX dead_letters_at ON {schema}.dead_letters (at DESC)")
