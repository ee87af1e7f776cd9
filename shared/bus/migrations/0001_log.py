"""The local bus: topics, their partitions, the records, and what groups have committed."""

from alembic import op

revision = "bus_0001"
down_revision = None
branch_labels = ("bus",)
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE bus.topics (
            topic text PRIMARY KEY,
            compacted boolean NOT NULL,
            retention_hours int NOT NULL
        )
        """
    )
    # One row per partition, rewritten by each append: room on its page keeps those updates HOT.
    op.execute(
        """
        CREATE TABLE bus.partitions (
            log int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            topic text NOT NULL REFERENCES bus.topics,
            partition int NOT NULL,
            first bigint NOT NULL DEFAULT 0,
            next bigint NOT NULL DEFAULT 0,
            UNIQUE (topic, partition)
        ) WITH (fillfactor = 20)
        """
    )
    op.execute(
        """
        CREATE TABLE bus.records (
            log int NOT NULL,
            "offset" bigint NOT NULL,
            written_at timestamptz NOT NULL,
            key bytea,
            value bytea,
            headers text,
            PRIMARY KEY (log, "offset")
        ) WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000)
        """
    )
    op.execute(
        """
        CREATE TABLE bus.commits (
            "group" text NOT NULL,
            log int NOT NULL REFERENCES bus.partitions,
            next bigint NOT NULL,
            PRIMARY KEY ("group", log)
        ) WITH (fillfactor = 50)
        """
    )


def downgrade() -> None:
    for table in ("commits", "records", "partitions", "topics"):
        op.execute(f"DROP TABLE bus.{table}")
