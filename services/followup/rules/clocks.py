"""The clocks of a first contact: when somebody is told that it is not out yet, and when an unknown send is theirs."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from shared.events.stores import StoreConfigured, quiet_until

REMIND_AFTER: Final = timedelta(hours=24)
GRACE: Final = timedelta(minutes=5)
"""How long a reply waits for the notice that it answers, and a scan's word of shipping for the shop's own."""
SETTLE: Final = timedelta(minutes=10)
"""How long an unknown send may still be settled by a receipt; and how long a case over before anyone was told waits for
the word that its notice did not go out."""
MARGIN: Final = timedelta(minutes=15)
"""An unknown send is a person's this long before the contact is due, at the latest."""
QUESTION_WITHIN: Final = timedelta(hours=24)
"""A case closes without its satisfaction question going out after this long."""
DELIVERY_WITHIN: Final = timedelta(days=14)
"""A shipped case closes without word of the delivery after this long."""

NEXT_STEP_WITHIN: Final = timedelta(minutes=30)
UPDATE_WITHIN: Final = timedelta(hours=2)
"""How long what follows the first contact may take to go out once it is ready, without anybody being told."""


class Stage(NamedTuple):
    """From `at` on a first contact that is not out deserves this much urgency: 1 a ticket, 2 a page, 3 a person now."""

    at: datetime
    urgency: int
    reason: str


def stages(detected_at: datetime, contact_due_at: datetime) -> tuple[Stage, ...]:
    """30, 60 and 90 minutes after detection, or a quarter, half and three quarters of a shorter time; never after
    `contact_due_at`."""
    quarter = min(max(contact_due_at - detected_at, timedelta(0)) / 4, timedelta(minutes=30))
    names = (
        "no first contact yet",
        "half of the time for the first contact is gone",
        "the first contact is nearly late",
    )
    return tuple(Stage(detected_at + quarter * n, n, name) for n, name in enumerate(names, 1))


def unknown_due(at: datetime, contact_due_at: datetime | None) -> datetime:
    """When an unknown send becomes a person's task: 10 minutes after it, or 15 before the contact is due where that is
    sooner; never before it happened."""
    due = at + SETTLE
    return due if contact_due_at is None else max(at, min(due, contact_due_at - MARGIN))


def update_due(ready_at: datetime, store: StoreConfigured) -> datetime:
    """When an update that has not gone out becomes a person's task: in time that is not the store's quiet hours, which
    it may wait for the end of."""
    due = (quiet_until(store, ready_at) or ready_at) + UPDATE_WITHIN
    morning = quiet_until(store, due)
    return due if morning is None else morning + UPDATE_WITHIN
