"""From what happened to a notice to the event that tells it."""

from datetime import datetime
from typing import Any, Final, TypeVar

from services.dispatcher.rules.state import Notice
from shared.events.deliveries import Delivery
from shared.events.envelope import Event, event, event_id

SOURCE: Final = "headsup/dispatcher"

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
