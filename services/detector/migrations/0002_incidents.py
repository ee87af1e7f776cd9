"""What the detector has told, for people to look at; and when each store's feed last spoke."""

from alembic import op

revision = "detector_0002"
down_revision = "detector_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # `body` is the incident as it was last emitted, UTF-8 JSON; the columns are what lists ask for.
    op.execute(
        """
        CREATE TABLE detector.incidents (
            incident_id text PRIMARY KEY,
            order_id text NOT NULL,
            store_id text NOT NULL,
            scenario text NOT NULL,
            open boolean NOT NULL,
            detected_at timestamptz NOT NULL,
            body bytea NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX incidents_order ON detector.incidents (order_id)")
    op.execute("CREATE INDEX incidents_detected ON detector.incidents (detected_at DESC, incident_id DESC)")
    op.execute("CREATE TABLE detector.feeds (store_id text PRIMARY KEY, last_at timestamptz NOT NULL)")
