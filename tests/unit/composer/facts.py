"""Incidents and briefs for tests of the composer's rules."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.composer import catalogue
from services.composer.render import Renderer
from services.composer.rules.steps import Known
from services.composer.rules.write import Brief, Press
from shared.events.cases import NoticeRequested
from shared.events.contacts import Contact, RecipientKind
from shared.events.incidents import DateSource, Incident, IncidentOpened, IncidentResolved, OrderFacts, Scenario
from shared.events.notices import NoticeComposed, Purpose
from shared.events.orders import Line
from shared.events.stores import Mode, StoreConfigured, default_store

NOW = datetime(2026, 12, 13, 1, 0, tzinfo=UTC)
CATALOGUE = catalogue.load()
PRESS = Press(CATALOGUE, Renderer(CATALOGUE.languages))
STORE = default_store("shop-1", name="小鱼家")

SHIP_AT = datetime(2026, 12, 16, 4, 0, tzinfo=UTC)
UNTIL = datetime(2026, 12, 16, 15, 59, 59, tzinfo=UTC)
"""The end of that day in Shanghai: what is told as a day is kept until then."""


def line(**changes: Any) -> Line:
    given = {
        "line_id": "L1",
        "sku": "S1",
        "name": "羊绒围巾",
        "variant": "雾蓝",
        "quantity": 1,
        "unit_price": Decimal(129),
    }
    return Line.model_validate({**given, **changes})


def order(**changes: Any) -> OrderFacts:
    given = {
        "order_id": "202612121001",
        "customer_id": "c-7",
        "nickname": "小鱼",
        "contacts": (Contact(kind=RecipientKind.PHONE, sealed="c2VhbGVk", lookup="0123456789abcdef" * 4),),
        "lines": (line(),),
        "total": Decimal("129.00"),
        "currency": "CNY",
        "paid_at": NOW - timedelta(hours=30),
    }
    return OrderFacts.model_validate({**given, **changes})


def incident(kind: type[Incident] = IncidentOpened, *, facts: OrderFacts | None = None, **changes: Any) -> Any:
    facts = facts or order()
    given = {
        "incident_id": "I-1",
        "store_id": "shop-1",
        "order_id": facts.order_id,
        "scenario": Scenario.SHIPPING_DELAY,
        "cause": "warehouse_backlog",
        "evidence": ("evt-1",),
        "occurred_at": NOW - timedelta(minutes=5),
        "detected_at": NOW,
        "contact_due_at": NOW + timedelta(hours=2),
        "old_date": datetime(2026, 12, 14, 4, 0, tzinfo=UTC),
        "new_date": SHIP_AT,
        "date_source": DateSource.ESTIMATE,
        "facts": facts,
        "reason": "the warehouse ships later",
    }
    more = {"how": "shipped", "resolved_at": NOW} if kind is IncidentResolved else {}
    return kind.model_validate({**given, **more, **changes})


def request(purpose: Purpose, **changes: Any) -> NoticeRequested:
    given = {
        "case_id": "I-1",
        "incident_id": "I-1",
        "store_id": "shop-1",
        "order_id": "202612121001",
        "scenario": Scenario.SHIPPING_DELAY,
        "at": NOW,
        "request_id": "Q-1",
        "purpose": purpose,
    }
    return NoticeRequested.model_validate({**given, **changes})


def written(
    purpose: Purpose = Purpose.FIRST_CONTACT,
    of: Incident | None = None,
    *,
    store: StoreConfigured = STORE,
    press: Press = PRESS,
    mode: Mode = Mode.LIVE,
    known: Known | None = None,
    **changes: Any,
) -> NoticeComposed:
    """The notice for this purpose and incident."""
    brief = Brief(of or incident(), purpose, store, mode, NOW, known or Known(), **changes)
    notice = press.write(brief)
    assert notice is not None
    return notice
