"""What the detector emits: incidents opened, updated and resolved, with all that a message about them needs.

Nothing here holds a phone in the clear: contacts are sealed before an incident is written.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, Strict

from shared.events import topics
from shared.events.base import (
    MAX_LINES,
    Currency,
    Flag,
    Id,
    LongText,
    Money,
    Part,
    Payload,
    Photos,
    Quantity,
    Tags,
    Text,
    UtcTime,
    Word,
)
from shared.events.contacts import Contact
from shared.events.orders import Line, OrderKind, ShipTo
from shared.events.parcels import ParcelStatus


class Scenario(StrEnum):
    SHIPPING_DELAY = "shipping_delay"
    OUT_OF_STOCK = "out_of_stock"
    MINOR_DEFECT = "minor_defect"
    LOGISTICS_EXCEPTION = "logistics_exception"


class Cause(StrEnum):
    """Every cause that an incident may state, named after who is at fault once a parcel is on its way."""

    UNKNOWN = "unknown"

    ORDER_VOLUME = "order_volume"
    WAREHOUSE_BACKLOG = "warehouse_backlog"
    SUPPLIER_LATE = "supplier_late"
    PACKING_ERROR = "packing_error"

    SOLD_OUT = "sold_out"
    STOCK_RECORD_WRONG = "stock_record_wrong"
    DISCONTINUED = "discontinued"

    DEFECT_AT_INSPECTION = "defect_at_inspection"

    CARRIER_STUCK_AT_HUB = "carrier_stuck_at_hub"
    CARRIER_TRANSIT_DELAY = "carrier_transit_delay"
    CARRIER_DAMAGED = "carrier_damaged"
    CARRIER_LOST = "carrier_lost"
    RETAILER_NOT_COLLECTED = "retailer_not_collected"
    RETAILER_WRONG_ADDRESS = "retailer_wrong_address"
    CONSIGNEE_ADDRESS = "consignee_address"
    CONSIGNEE_UNREACHABLE = "consignee_unreachable"
    CONSIGNEE_REFUSED = "consignee_refused"
    CONSIGNEE_NOT_PICKED_UP = "consignee_not_picked_up"
    CUSTOMS_HELD = "customs_held"
    WEATHER_DELAY = "weather_delay"
    WEATHER_FORCE_MAJEURE = "weather_force_majeure"


CAUSES: Final[dict[Scenario, frozenset[Cause]]] = {
    Scenario.SHIPPING_DELAY: frozenset(
        {
            Cause.ORDER_VOLUME,
            Cause.WAREHOUSE_BACKLOG,
            Cause.SUPPLIER_LATE,
            Cause.PACKING_ERROR,
            Cause.UNKNOWN,
        }
    ),
    Scenario.OUT_OF_STOCK: frozenset(
        {
            Cause.SOLD_OUT,
            Cause.STOCK_RECORD_WRONG,
            Cause.SUPPLIER_LATE,
            Cause.DISCONTINUED,
            Cause.UNKNOWN,
        }
    ),
    Scenario.MINOR_DEFECT: frozenset({Cause.DEFECT_AT_INSPECTION}),
    Scenario.LOGISTICS_EXCEPTION: frozenset(
        {Cause.UNKNOWN}
        | {c for c in Cause if c.startswith(("carrier_", "retailer_", "consignee_", "customs_", "weather_"))}
    ),
}
"""What each scenario may state. A shipping delay never names the courier: the parcel was not handed over."""


class DateSource(StrEnum):
    """Where the new date is from, best first."""

    ESTIMATE = "estimate"
    DECLARATION = "declaration"
    FORECAST = "forecast"
    FALLBACK = "fallback"


class Hold(StrEnum):
    """Why an incident must wait for a person before anyone is told."""

    FEED_STALE = "feed_stale"
    WAVE = "wave"
    LATE_START = "late_start"


class How(StrEnum):
    """What ended an incident."""

    SHIPPED = "shipped"
    PACKED = "packed"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"
    BACK_IN_TIME = "back_in_time"
    PROMISE_MOVED = "promise_moved"
    RESTOCKED = "restocked"
    REPLACED = "replaced"
    MOVING_AGAIN = "moving_again"
    RESHIPPED = "reshipped"


class AffectedLine(Part):
    """A line that the trouble hits; `quantity` may be less than what was ordered."""

    sku: Id
    quantity: Quantity
    line_id: Id | None = None


class ParcelFacts(Part):
    """What is known of the parcel in trouble. `place` is the hub or town of the last scan."""

    tracking_no: Id
    carrier: Word | None = None
    parcel_id: Id | None = None
    status: ParcelStatus | None = None
    place: Text | None = None
    description: LongText | None = None
    scanned_at: UtcTime | None = None
    shipped_at: UtcTime | None = None


class DefectFacts(Part):
    """What inspection found on the item of an affected line."""

    kind: Word
    severity: Word
    affects_use: Flag
    description: LongText
    photos: Photos = ()
    replacement_available: Flag


class ShortageFacts(Part):
    """`confirmed` when the warehouse said so itself, not inferred from stock. Without `restock_at` none is
    known."""

    confirmed: Flag
    discontinued: Flag = False
    restock_at: UtcTime | None = None


class OrderFacts(Part):
    """What a message may say about the order and to whom. `contacts` are in the order in which they should be
    tried."""

    order_id: Id
    customer_id: Id
    nickname: Text = Field(repr=False)
    language: Annotated[str, Field(min_length=2, max_length=35)] | None = None
    tags: Tags = ()
    contacts: Annotated[tuple[Contact, ...], Field(max_length=20)] = ()
    lines: Annotated[tuple[Line, ...], Field(max_length=MAX_LINES)]
    total: Money
    refunded: Money = Decimal(0)
    """What of the total went back already, price protection too."""
    currency: Currency
    paid_at: UtcTime
    ship_to: ShipTo | None = None
    warehouse: Id | None = None
    campaign: Text | None = None
    kind: OrderKind = OrderKind.STOCK
    affected: Annotated[tuple[AffectedLine, ...], Field(max_length=MAX_LINES)] = ()
    """The lines that are hit; empty means all."""
    parcel: ParcelFacts | None = None
    defect: DefectFacts | None = None
    shortage: ShortageFacts | None = None


class Incident(Payload):
    """One incident as it stands. There is one for life per store, order, scenario and subject (`incident_id`
    is derived from them); reopening and every change raise `revision`.

    `subject` is the line or parcel where the order is split, else empty. `cause` is one of
    `CAUSES[scenario]`; a reader that meets a cause it does not know treats it as unknown. `evidence` holds
    the ids of the events that show it. `occurred_at` and `detected_at` start the two clocks, `contact_due_at`
    ends them. `old_date` is what the customer was promised (`promise_assumed`: by us, never to be quoted),
    `new_date` what holds now, from `date_source`.
    """

    TOPIC: ClassVar[str] = topics.INCIDENTS

    incident_id: Id
    store_id: Id
    order_id: Id
    scenario: Scenario
    subject: Annotated[str, Field(max_length=128)] = ""
    revision: Annotated[int, Strict(), Field(ge=1)] = 1
    cause: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    evidence: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=100)] = ()
    occurred_at: UtcTime
    detected_at: UtcTime
    contact_due_at: UtcTime
    old_date: UtcTime | None = None
    new_date: UtcTime | None = None
    date_source: DateSource | None = None
    promise_assumed: Flag = False
    breached: Flag = False
    facts: OrderFacts
    reason: LongText
    hold: Hold | None = None


class IncidentOpened(Incident):
    """Opened, or opened again with a higher revision."""

    TYPE: ClassVar[str] = "incident.opened.v1"


class IncidentUpdated(Incident):
    """Still open, with another date, place, cause or hold."""

    TYPE: ClassVar[str] = "incident.updated.v1"


class IncidentResolved(Incident):
    """Over, and `how`. What to tell whom is decided downstream: the detector does not know what was told."""

    TYPE: ClassVar[str] = "incident.resolved.v1"

    how: How
    resolved_at: UtcTime
