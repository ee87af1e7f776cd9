"""From what happened to a notice to the event that tells it."""

from datetime import datetime
from typing import Any, Final, TypeVar

from services.dispatcher.rules.state import Notice
from shared.events.deliveries import Channel, ContactOptedOut, Delivery
from shared.events.envelope import Event, event, event_id

SOURCE: Final = "headsup/dispatcher"
CUSTOMER: Final = "customer"
"""By whom an opt-out is, where the customer said so."""

D = TypeVar("D", bound=Delivery)


def tell(notice: Notice, kind: type[D], now: datetime, **fields: Any) -> Event[D]:
    """The event for a change of this notice. Its id follows from the notice and the count of its changes, which is kept
    with them: doing it twice says it once."""
    data = notice.data
    notice.progress.changes += 1
    payload = kind(
        notice_id=data.notice_id,
        incident_id=data.incident_id,
        revision=data.revision,
        store_id=data.store_id,
        order_id=data.order_id,
        scenario=data.scenario,
        purpose=data.purpose,
        at=now,
        **fields,
    )
    identity = event_id(kind.TYPE, data.notice_id, str(notice.progress.changes))
    return event(payload, id=identity, source=SOURCE, time=now)


def opted_out(store_id: str, order_id: str, recipient: str, channel: Channel, now: datetime) -> Event[ContactOptedOut]:
    """The event for a customer who wants no more messages from this store; `recipient` is the contact that was written
    to last (a stand-in for a customer without contacts is no look-up value)."""
    lookup = recipient if all(c in "0123456789abcdef" for c in recipient) else "0" * 64
    told = ContactOptedOut(order_id=order_id, store_id=store_id, lookup=lookup, channel=channel, at=now)
    return event(told, id=event_id(ContactOptedOut.TYPE, store_id, recipient), source=SOURCE, time=now)
