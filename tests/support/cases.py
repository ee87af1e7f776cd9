"""One case's life as events: the incident, its notices, what became of them, replies and remedies."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from services.followup.rules.announce import remedy_id
from shared.events.deliveries import (
    CallRequested,
    Channel,
    ContactOptedOut,
    Delivery,
    NoticeDelivered,
    NoticeFailed,
    NoticeHeld,
    NoticeReleased,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
    Reason,
    WavePaused,
)
from shared.events.envelope import Event, event, event_id
from shared.events.incidents import (
    DateSource,
    How,
    Incident,
    IncidentOpened,
    IncidentResolved,
    IncidentUpdated,
    OrderFacts,
    Scenario,
)
from shared.events.notices import (
    OFFERING,
    NoticeComposed,
    Option,
    Promise,
    PromiseKind,
    Purpose,
    RemedyKind,
    Texts,
)
from shared.events.orders import Line, OrderPayload, RemedyCompleted, RemedyFailed
from shared.events.replies import ReplyReceived
from tests.support.stories import START, Order, hours

SHIP_BY = 80.0
"""Hours after START: the new date that notices name."""
LOOKUP = "0123456789abcdef"


def options(first: int = 1, ship_by: float = SHIP_BY) -> tuple[Option, ...]:
    """Wait, with a coupon within a day and a new date; or the money back within the hour."""
    date = START + hours(ship_by)
    return (
        Option(
            number=first,
            code=RemedyKind.WAIT,
            label="继续等待",
            promise="12月15日前发出，送10元券",
            promises=(
                Promise(kind=PromiseKind.SHIP_BY, text="12月15日前发出", due_at=date),
                Promise(kind=PromiseKind.COUPON, text="24小时内送券", within_seconds=86_400, amount=Decimal(10)),
            ),
            amount=Decimal(10),
            gift=True,
        ),
        Option(
            number=first + 1,
            code=RemedyKind.REFUND,
            label="马上退款",
            promise="1小时内办理退款",
            promises=(Promise(kind=PromiseKind.REFUND, text="1小时内办理退款", within_seconds=3600),),
            amount=Decimal("129.00"),
        ),
    )


class CaseStory:
    """Builds the events of one case; `at` is hours after START, and the same call is the same event."""

    def __init__(self, order_id: str = "T1001", store_id: str = "shop-1", cause: str = "warehouse_backlog") -> None:
        self.order = Order(order_id)
        self.order_id = order_id
        self.store_id = store_id
        self.cause = cause
        self.case_id = event_id(store_id, order_id, str(Scenario.SHIPPING_DELAY), "")
        self.remedy_id = remedy_id(self.case_id)

    def notice_id(self, purpose: Purpose, revision: int = 1) -> str:
        return event_id(self.case_id, str(revision), purpose)

    # ---- the detector's

    def opened(self, at: float = 0, *, revision: int = 1, due: float = 2, **changes: Any) -> Event[Any]:
        return self._incident(IncidentOpened, at, revision, detected_at=START + hours(at), due=due, **changes)

    def updated(self, at: float, *, revision: int = 2, detected: float = 0, **changes: Any) -> Event[Any]:
        return self._incident(IncidentUpdated, at, revision, detected_at=START + hours(detected), **changes)

    def resolved(self, at: float, how: How = How.SHIPPED, *, revision: int = 9, detected: float = 0) -> Event[Any]:
        end: dict[str, Any] = {"how": how, "resolved_at": START + hours(at)}
        return self._incident(IncidentResolved, at, revision, detected_at=START + hours(detected), **end)

    def _incident(
        self, kind: type[Incident], at: float, revision: int, *, detected_at: datetime, due: float = 2, **more: Any
    ) -> Event[Any]:
        line = Line(line_id="L1", sku="SKU-1", name="羊绒围巾", variant="雾蓝", quantity=1, unit_price=Decimal(129))
        fields: dict[str, Any] = {
            "incident_id": self.case_id,
            "store_id": self.store_id,
            "order_id": self.order_id,
            "scenario": Scenario.SHIPPING_DELAY,
            "revision": revision,
            "cause": self.cause,
            "occurred_at": detected_at - hours(1),
            "detected_at": detected_at,
            "contact_due_at": detected_at + hours(due),
            "old_date": START + hours(48),
            "new_date": START + hours(SHIP_BY),
            "date_source": DateSource.ESTIMATE,
            "facts": OrderFacts(
                order_id=self.order_id,
                customer_id="c-7",
                nickname="小鱼",
                lines=(line,),
                total=Decimal("129.00"),
                currency="CNY",
                paid_at=START,
            ),
            "reason": "the warehouse ships later",
            **more,
        }
        return self._event(kind(**fields), at, f"{revision}")

    # ---- the composer's

    def composed(
        self,
        at: float,
        purpose: Purpose = Purpose.FIRST_CONTACT,
        *,
        revision: int = 1,
        first: int = 1,
        ship_by: float = SHIP_BY,
        promised: bool = True,
        language: str = "zh-CN",
    ) -> Event[Any]:
        offers = purpose in OFFERING
        date = START + hours(ship_by)
        data = NoticeComposed(
            notice_id=self.notice_id(purpose, revision),
            incident_id=self.case_id,
            revision=revision,
            store_id=self.store_id,
            order_id=self.order_id,
            scenario=Scenario.SHIPPING_DELAY,
            purpose=purpose,
            template=f"shipping_delay/{purpose}",
            language=language,
            texts=Texts(sms="【小店】您的围巾…"),
            options=options(first, ship_by) if offers else (),
            promises=(Promise(kind=PromiseKind.SHIP_BY, text="12月15日前发出", due_at=date),)
            if offers and promised
            else (),
            customer_id="c-7",
            told_date=date if offers else None,
            occurred_at=START - hours(1),
            detected_at=START,
            currency="CNY",
        )
        return self._event(data, at, f"{purpose}-{revision}")

    # ---- the dispatcher's

    def sent(self, at: float, purpose: Purpose = Purpose.FIRST_CONTACT, **fields: Any) -> Event[Any]:
        return self._delivery(NoticeSent, at, purpose, **{"channel": Channel.SMS, "step": 0, **fields})

    def delivered(self, at: float, purpose: Purpose = Purpose.FIRST_CONTACT, **fields: Any) -> Event[Any]:
        return self._delivery(NoticeDelivered, at, purpose, **{"channel": Channel.SMS, "step": 0, **fields})

    def unknown(self, at: float, purpose: Purpose = Purpose.FIRST_CONTACT, **fields: Any) -> Event[Any]:
        reason = {"reason": Reason.TIMED_OUT, "channel": Channel.SMS, "step": 0}
        return self._delivery(NoticeUnknown, at, purpose, **{**reason, **fields})

    def failed(self, at: float, purpose: Purpose = Purpose.FIRST_CONTACT, **fields: Any) -> Event[Any]:
        reason = {"reason": Reason.BAD_ADDRESS, "channel": Channel.SMS, "step": 0, "final": True}
        return self._delivery(NoticeFailed, at, purpose, **{**reason, **fields})

    def held(self, at: float, reason: Reason, purpose: Purpose = Purpose.FIRST_CONTACT, **fields: Any) -> Event[Any]:
        return self._delivery(NoticeHeld, at, purpose, reason=reason, **fields)

    def released(self, at: float, purpose: Purpose = Purpose.FIRST_CONTACT) -> Event[Any]:
        return self._delivery(NoticeReleased, at, purpose, by="anna")

    def suppressed(
        self, at: float, reason: Reason, purpose: Purpose = Purpose.FIRST_CONTACT, *, revision: int = 1
    ) -> Event[Any]:
        return self._delivery(NoticeSuppressed, at, purpose, reason=reason, revision=revision)

    def call(self, at: float) -> Event[Any]:
        return self._delivery(CallRequested, at, Purpose.FIRST_CONTACT)

    def _delivery(
        self, kind: type[Delivery], at: float, purpose: Purpose, *, revision: int = 1, **fields: Any
    ) -> Event[Any]:
        data = kind(
            notice_id=self.notice_id(purpose, revision),
            incident_id=self.case_id,
            revision=revision,
            store_id=self.store_id,
            order_id=self.order_id,
            scenario=Scenario.SHIPPING_DELAY,
            purpose=purpose,
            at=START + hours(at),
            **fields,
        )
        return self._event(data, at, f"{purpose}-{revision}-{fields.get('channel')}")

    def opted_out(self, at: float) -> Event[Any]:
        data = ContactOptedOut(
            order_id=self.order_id, store_id=self.store_id, lookup=LOOKUP, channel=Channel.SMS, at=START + hours(at)
        )
        return self._event(data, at, "")

    def wave(self, at: float, incidents: int = 250) -> Event[Any]:
        data = WavePaused(
            wave_id=f"wave-{self.store_id}",
            store_id=self.store_id,
            scenario=Scenario.SHIPPING_DELAY,
            at=START + hours(at),
            incidents=incidents,
            open_orders=900,
        )
        return self._event(data, at, "")

    def reply(self, at: float, text: str, **fields: Any) -> Event[Any]:
        known = {"order_id": self.order_id, "store_id": self.store_id, "incident_ids": (self.case_id,)}
        data = ReplyReceived(
            **{
                "reply_id": f"{self.order_id}-reply-{at}",
                **known,
                "channel": "sms",
                "text": text,
                "received_at": START + hours(at),
                **fields,
            }
        )
        return self._event(data, at, "")

    # ---- the order system's

    def remedied(self, at: float) -> Event[Any]:
        data = RemedyCompleted(remedy_id=self.remedy_id, at=START + hours(at), order_id=self.order_id)
        return self._event(data, at, "")

    def remedy_failed(self, at: float, detail: str = "no such payment") -> Event[Any]:
        data = RemedyFailed(remedy_id=self.remedy_id, at=START + hours(at), detail=detail)
        return self._event(data, at, "")

    def asked(self, kind: type[OrderPayload], at: float) -> Event[Any]:
        """The customer turns to the shop."""
        return self._event(kind(order_id=self.order_id), at, "")

    def _event(self, data: Any, at: float, name: str) -> Event[Any]:
        identity = f"{self.order_id}-{data.TYPE}-{at}-{name}"
        return event(data, id=identity, source="test/headsup", time=START + hours(at))
