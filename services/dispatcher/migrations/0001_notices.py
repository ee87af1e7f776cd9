"""The dispatcher's own tables: its view of orders and incidents, notices, the ledger of sends, and what people said."""

from alembic import op

revision = "dispatcher_0001"
down_revision = None
branch_labels = ("dispatcher",)
depends_on = None


def upgrade() -> None:
    # `state`, `body` and `progress` are UTF-8 JSON: convert_from(state, 'UTF8')::json reads them.
    op.execute(
        "CREATE TABLE dispatcher.orders (order_id text PRIMARY KEY, state bytea NOT NULL) WITH (fillfactor = 70)"
    )
    op.execute(
        "CREATE TABLE dispatcher.incidents (incident_id text PRIMARY KEY, state bytea NOT NULL) WITH (fillfactor = 70)"
    )
    op.execute(
        """
        CREATE TABLE dispatcher.notices (
            notice_id text PRIMARY KEY,
            incident_id text NOT NULL,
            order_id text NOT NULL,
            store_id text NOT NULL,
            scenario text NOT NULL,
            purpose text NOT NULL,
            state text NOT NULL,
            reason text,
            detail text NOT NULL DEFAULT '',
            releasable boolean NOT NULL DEFAULT true,
            is_open boolean NOT NULL DEFAULT true,
            came_at timestamptz NOT NULL,
            urgent_at timestamptz NOT NULL,
            look_at timestamptz,
            claimed_until timestamptz,
            sent_at timestamptz,
            body bytea NOT NULL,
            progress bytea NOT NULL
        )
        """
    )
    # What the sender asks: whose turn it is (the most urgent first), and whose claims have run out.
    op.execute("CREATE INDEX notices_turn ON dispatcher.notices (urgent_at, notice_id) WHERE look_at IS NOT NULL")
    op.execute("CREATE INDEX notices_claimed ON dispatcher.notices (incident_id) WHERE claimed_until IS NOT NULL")
    # What news asks: which notices to look at again.
    op.execute("CREATE INDEX notices_order ON dispatcher.notices (order_id) WHERE is_open")
    op.execute("CREATE INDEX notices_incident ON dispatcher.notices (incident_id)")
    op.execute("CREATE INDEX notices_store ON dispatcher.notices (store_id, scenario, reason) WHERE is_open")
    op.execute("CREATE INDEX notices_held ON dispatcher.notices (store_id) WHERE state = 'held'")
    # What people ask.
    op.execute("CREATE INDEX notices_listed ON dispatcher.notices (came_at DESC, notice_id DESC)")
    op.execute("CREATE INDEX notices_listed_order ON dispatcher.notices (order_id, came_at DESC)")
    # One row for each message that may exist: a second claim of the same is refused by the key.
    op.execute(
        """
        CREATE TABLE dispatcher.attempts (
            notice_id text NOT NULL,
            step smallint NOT NULL,
            recipient text NOT NULL,
            reference text NOT NULL UNIQUE,
            reply_key text NOT NULL DEFAULT '',
            provider text NOT NULL,
            state text NOT NULL,
            attempt int NOT NULL,
            claimed_by text NOT NULL,
            claimed_at timestamptz NOT NULL,
            provider_id text,
            receipt text,
            receipt_detail text NOT NULL DEFAULT '',
            PRIMARY KEY (notice_id, step, recipient)
        )
        """
    )
    op.execute("CREATE INDEX attempts_recipient ON dispatcher.attempts (recipient, claimed_at DESC)")
    op.execute(
        "CREATE INDEX attempts_reply_key ON dispatcher.attempts (reply_key, claimed_at DESC) WHERE reply_key <> ''"
    )
    op.execute("CREATE INDEX attempts_unknown ON dispatcher.attempts (claimed_at) WHERE state = 'unknown'")
    # How much of it: a name within a store, by day, minute or template; slots keep writers apart, the sum counts.
    op.execute(
        """
        CREATE TABLE dispatcher.tallies (
            store_id text NOT NULL,
            name text NOT NULL,
            bucket text NOT NULL,
            slot smallint NOT NULL DEFAULT 0,
            n numeric NOT NULL DEFAULT 0,
            PRIMARY KEY (store_id, name, bucket, slot)
        ) WITH (fillfactor = 50)
        """
    )
    op.execute(
        """
        CREATE TABLE dispatcher.waves (
            store_id text NOT NULL,
            scenario text NOT NULL,
            number int NOT NULL,
            wave_id text NOT NULL UNIQUE,
            started_at timestamptz NOT NULL,
            words text NOT NULL,
            released_at timestamptz,
            sends boolean,
            PRIMARY KEY (store_id, scenario, number)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE dispatcher.opt_outs (
            store_id text NOT NULL,
            lookup text NOT NULL,
            at timestamptz NOT NULL,
            channel text NOT NULL,
            by_whom text NOT NULL,
            PRIMARY KEY (store_id, lookup)
        )
        """
    )
    op.execute("CREATE INDEX opt_outs_listed ON dispatcher.opt_outs (at DESC, lookup DESC)")
    op.execute(
        """
        CREATE TABLE dispatcher.inbound (
            provider text NOT NULL,
            id text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (provider, id)
        )
        """
    )
    # A channel that failed: how often in a row, and until when nothing is given to it.
    op.execute(
        """
        CREATE TABLE dispatcher.channels (
            name text PRIMARY KEY,
            failures int NOT NULL,
            paused_until timestamptz NOT NULL,
            account boolean NOT NULL,
            reason text NOT NULL
        )
        """
    )
    # The sandbox: what customers would have got, and how it was told to misbehave.
    op.execute(
        """
        CREATE TABLE dispatcher.sandbox_messages (
            message_id text PRIMARY KEY,
            reference text NOT NULL,
            store_id text NOT NULL,
            provider text NOT NULL,
            kind text NOT NULL,
            recipient_end text NOT NULL,
            signature text NOT NULL,
            body text NOT NULL,
            media jsonb NOT NULL,
            at timestamptz NOT NULL,
            receipt_due boolean NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX sandbox_listed ON dispatcher.sandbox_messages (at DESC, message_id DESC)")
    op.execute("CREATE INDEX sandbox_reference ON dispatcher.sandbox_messages (reference)")
    op.execute("CREATE INDEX sandbox_receipts ON dispatcher.sandbox_messages (at) WHERE receipt_due")
    op.execute(
        """
        CREATE TABLE dispatcher.sandbox_behaviours (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL,
            seconds double precision NOT NULL,
            remaining int NOT NULL
        )
        """
    )
