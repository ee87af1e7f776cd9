"""The detector's own tables: what is known of each order, and scans that wait for their order."""

from alembic import op

revision = "detector_0001"
down_revision = None
branch_labels = ("detector",)
depends_on = None


def upgrade() -> None:
    # `state` is rewritten by every event and in no index, so updates stay on their page (HOT); `payment` is the bulky
    # part, written once. Both are UTF-8 JSON: convert_from(state, 'UTF8')::json reads them.
    op.execute(
        """
        CREATE TABLE detector.orders (
            order_id text PRIMARY KEY,
            state bytea NOT NULL,
            payment bytea
        ) WITH (fillfactor = 70)
        """
    )
    # Tracking number to order; `parked` holds what was scanned before any order named the number.
    op.execute(
        """
        CREATE TABLE detector.parcels (
            tracking_no text PRIMARY KEY,
            order_id text,
            parked bytea
        ) WITH (fillfactor = 90)
        """
    )
