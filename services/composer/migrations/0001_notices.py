"""The composer's own tables: incidents as it knows them, digits in use, waves, and who set what."""

from alembic import op

revision = "composer_0001"
down_revision = None
branch_labels = ("composer",)
depends_on = None


def upgrade() -> None:
    # `state` is small and rewritten by every event, `incident` is the bulky newest revision. Both are UTF-8 JSON:
    # convert_from(state, 'UTF8')::json reads them. A row without `incident` was named by another event first.
    op.execute(
        """
        CREATE TABLE composer.incidents (
            incident_id text PRIMARY KEY,
            state bytea NOT NULL,
            incident bytea
        ) WITH (fillfactor = 70)
        """
    )
    # Which digits mean which incident in the replies from one address (a keyed hash, never readable).
    op.execute(
        """
        CREATE TABLE composer.digits (
            lookup text NOT NULL,
            number smallint NOT NULL,
            incident_id text NOT NULL,
            PRIMARY KEY (lookup, number)
        )
        """
    )
    op.execute("CREATE INDEX digits_incident ON composer.digits (incident_id)")
    # Paused waves, so that a person's release can be checked and addressed.
    op.execute("CREATE TABLE composer.waves (wave_id text PRIMARY KEY, store_id text NOT NULL)")
    op.execute(
        """
        CREATE TABLE composer.audit (
            id text PRIMARY KEY,
            at timestamptz NOT NULL,
            by text NOT NULL,
            type text NOT NULL,
            store_id text,
            what text NOT NULL,
            old jsonb,
            new jsonb NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX audit_at ON composer.audit (at DESC, id DESC)")
