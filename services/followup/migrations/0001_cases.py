"""The follow-up's own tables: cases, their timelines, promises, and people's tasks."""

from alembic import op

revision = "followup_0001"
down_revision = None
branch_labels = ("followup",)
depends_on = None


def upgrade() -> None:
    # What an order's own events say; most orders never have a case. UTF-8 JSON: convert_from(facts, 'UTF8')::json.
    op.execute("CREATE TABLE followup.orders (order_id text PRIMARY KEY, facts bytea NOT NULL DEFAULT '{}')")
    # `facts` is the case (UTF-8 JSON), the other columns are what lists and figures need of it. `state` is null while
    # the case is a stub, or its store's mode lets none open.
    op.execute(
        """
        CREATE TABLE followup.cases (
            case_id text PRIMARY KEY,
            remedy_id text NOT NULL UNIQUE,
            order_id text,
            store_id text,
            scenario text,
            state text,
            cause text,
            occurred_at timestamptz,
            detected_at timestamptz,
            contact_due_at timestamptz,
            contacted_at timestamptz,
            replies integer,
            choice text,
            compensation numeric,
            currency text,
            score integer,
            closed_as text,
            closed_at timestamptz,
            facts bytea NOT NULL DEFAULT '{}'
        )
        """
    )
    op.execute("CREATE INDEX cases_order ON followup.cases (order_id)")
    op.execute(
        "CREATE INDEX cases_untold ON followup.cases (detected_at) WHERE state = 'open' AND contacted_at IS NULL"
    )
    op.execute("CREATE INDEX cases_listed ON followup.cases (detected_at DESC, case_id DESC) WHERE state IS NOT NULL")
    op.execute(
        """
        CREATE TABLE followup.timeline (
            case_id text NOT NULL,
            id text NOT NULL,
            seq bigserial,
            at timestamptz NOT NULL,
            type text NOT NULL,
            data jsonb NOT NULL,
            PRIMARY KEY (case_id, id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE followup.promises (
            promise_id text PRIMARY KEY,
            case_id text NOT NULL,
            order_id text,
            store_id text,
            scenario text,
            kind text NOT NULL,
            text text NOT NULL,
            state text NOT NULL,
            made_at timestamptz NOT NULL,
            due_at timestamptz NOT NULL,
            settled_at timestamptz,
            reason text NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX promises_case ON followup.promises (case_id)")
    op.execute("CREATE INDEX promises_order ON followup.promises (order_id)")
    op.execute("CREATE INDEX promises_listed ON followup.promises (made_at DESC, promise_id DESC)")
    # One open task a group: a wave is one task. Who belongs to it is in `task_members`.
    op.execute(
        """
        CREATE TABLE followup.tasks (
            task_id text PRIMARY KEY,
            group_key text NOT NULL,
            kind text NOT NULL,
            state text NOT NULL DEFAULT 'open',
            store_id text,
            scenario text,
            cause text NOT NULL,
            case_id text,
            reason text NOT NULL,
            urgency integer NOT NULL,
            least integer NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL,
            due_at timestamptz NOT NULL,
            claimed_by text,
            done_by text,
            done_at timestamptz,
            note text NOT NULL DEFAULT ''
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX tasks_open ON followup.tasks (group_key) WHERE state <> 'done'")
    op.execute("CREATE INDEX tasks_listed ON followup.tasks (created_at DESC, task_id DESC)")
    op.execute(
        """
        CREATE TABLE followup.task_members (
            task_id text NOT NULL REFERENCES followup.tasks,
            member text NOT NULL,
            case_id text,
            order_id text,
            open boolean NOT NULL DEFAULT true,
            PRIMARY KEY (task_id, member)
        )
        """
    )
    op.execute("CREATE INDEX task_members_member ON followup.task_members (member)")
    op.execute("CREATE INDEX task_members_order ON followup.task_members (order_id)")
    op.execute("CREATE INDEX task_members_case ON followup.task_members (case_id)")
