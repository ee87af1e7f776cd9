"""What order systems tell us: an order's life from payment to review, remedies done, and operators'
declarations.

Fields are the least that each event must carry; those with a default may be left out. Where an order ships in
parts, `parcel_id` and `lines` say which part an event is about; without them it is about the whole order.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, Strict

from shared.events import topics
from shared.events.base import (
    MAX_LINES,
    Currency,
    Flag,
    Id,
    LineIds,
    LongText,
    Money,
    Part,
    Payload,
    Photos,
    Quantity,
    Tags,
    Text,
    Url,
    UtcTime,
    Word,
)
from shared.events.contacts import Address, Recipient, RecipientKind


class OrderKind(StrEnum):
    """Presale and made-to-order goods count only with an explicit promise."""

    STOCK = "stock"
    PRESALE = "presale"
    MADE_TO_ORDER = "made_to_order"


class Customer(Part):
    """Unique within a store. A `phone` on the wire is short for one phone in `recipients` and is moved there,
    so that readers look at `recipients` only. The nickname is whatever the customer wrote: text, never a
    template."""

    id: Id
    nickname: Text = Field(repr=False)
    language: Annotated[str, Field(min_length=2, max_length=35)] | None = None
    tags: Tags = ()
    recipients: Annotated[tuple[Recipient, ...], Field(max_length=20)] = Field(default=(), repr=False)
    phone: Address | None = Field(default=None, repr=False)

    def model_post_init(self, context: Any, /) -> None:
        if self.phone is None:
            return
        phone = Recipient(kind=RecipientKind.PHONE, value=self.phone)
        known = any(r.kind is RecipientKind.PHONE and r.value == self.phone for r in self.recipients)
        self.__dict__["recipients"] = self.recipients if known else (phone, *self.recipients)
        self.__dict__["phone"] = None


class Line(Part):
    """One line of an order. `short_name` is for messages where every character counts."""

    line_id: Id | None = None
    sku: Id
    name: Text
    short_name: Text | None = None
    variant: Text
    image_url: Url | None = None
    quantity: Quantity
    unit_price: Money


class ShipTo(Part):
    """Where to, no closer than the city."""

    province: Text = ""
    city: Text = ""


class ShortLine(Part):
    sku: Id
    quantity: Quantity
    line_id: Id | None = None


class OrderPayload(Payload):
    """An event about one order."""

    TOPIC: ClassVar[str] = topics.ORDERS

    order_id: Id
    store_id: Id | None = None


class OrderPaid(OrderPayload):
    """An order exists and is paid. `total` and all prices are in `currency`."""

    TYPE: ClassVar[str] = "order.paid.v1"

    store_id: Id
    customer: Customer
    lines: Annotated[tuple[Line, ...], Field(min_length=1, max_length=MAX_LINES)]
    total: Money
    currency: Currency
    paid_at: UtcTime
    promise_ship_by: UtcTime | None = None
    expected_delivery: UtcTime | None = None
    campaign: Text | None = None
    warehouse: Id | None = None
    ship_to: ShipTo | None = None
    kind: OrderKind = OrderKind.STOCK


class OrderPromiseChanged(OrderPayload):
    """The platform agreed to a new promise; it replaces the order's."""

    TYPE: ClassVar[str] = "order.promise_changed.v1"

    promise_ship_by: UtcTime
    expected_delivery: UtcTime | None = None
    reason: LongText | None = None


class OrderShipEstimated(OrderPayload):
    """The warehouse says when it will ship. A cause that is in no vocabulary of ours is kept; the rules map
    it."""

    TYPE: ClassVar[str] = "order.ship_estimated.v1"

    ship_at: UtcTime
    cause: Word | None = None
    parcel_id: Id | None = None
    lines: LineIds | None = None


class OrderPacked(OrderPayload):
    """Packed: it leaves tonight."""

    TYPE: ClassVar[str] = "order.packed.v1"

    packed_at: UtcTime | None = None
    parcel_id: Id | None = None
    lines: LineIds | None = None


class OrderShort(OrderPayload):
    """The warehouse cannot supply these lines. Without `restock_at` no restock is known."""

    TYPE: ClassVar[str] = "order.short.v1"

    lines: Annotated[tuple[ShortLine, ...], Field(min_length=1, max_length=MAX_LINES)]
    restock_at: UtcTime | None = None
    cause: Word | None = None


class OrderShipped(OrderPayload):
    """Handed to the carrier, as the shop says; the parcel's own scans follow on the tracking topic."""

    TYPE: ClassVar[str] = "order.shipped.v1"

    carrier: Word
    tracking_no: Id
    shipped_at: UtcTime
    expected_delivery: UtcTime | None = None
    parcel_id: Id | None = None
    lines: LineIds | None = None


class OrderDelivered(OrderPayload):
    TYPE: ClassVar[str] = "order.delivered.v1"

    delivered_at: UtcTime | None = None
    parcel_id: Id | None = None
    tracking_no: Id | None = None
    lines: LineIds | None = None


class OrderCancelled(OrderPayload):
    """Cancelled, wholly or only the named lines."""

    TYPE: ClassVar[str] = "order.cancelled.v1"

    reason: LongText | None = None
    lines: LineIds | None = None


class OrderRefunded(OrderPayload):
    """Money went back. A partial or price-protection refund closes nothing."""

    TYPE: ClassVar[str] = "order.refunded.v1"

    amount: Money | None = None
    lines: LineIds | None = None
    reason: Text | None = None

    @property
    def whole(self) -> bool | None:
        """Whether the whole order was refunded, as far as this event alone can tell: True without amount and
        lines, False for nothing or a price protection, None where it takes the order's own total and prices."""
        if self.reason == "price_protection" or self.amount == 0 or self.lines == ():
            return False
        return True if self.amount is None and self.lines is None else None


class OrderRefundRequested(OrderPayload):
    """The customer applied for a refund before we wrote: the case goes to an agent."""

    TYPE: ClassVar[str] = "order.refund_requested.v1"

    reason: LongText | None = Field(default=None, repr=False)
    lines: LineIds | None = None


class CustomerContacted(OrderPayload):
    """The customer asked the shop about this order before we wrote."""

    TYPE: ClassVar[str] = "customer.contacted.v1"

    channel: Word | None = None
    topic: Text | None = None


class DisputeOpened(OrderPayload):
    TYPE: ClassVar[str] = "dispute.opened.v1"

    dispute_id: Id | None = None
    reason: LongText | None = Field(default=None, repr=False)


class ReviewPosted(OrderPayload):
    """`score` counts stars from 1 (worst) to 5."""

    TYPE: ClassVar[str] = "review.posted.v1"

    score: Annotated[int, Strict(), Field(ge=1, le=5)] | None = None
    text: LongText | None = Field(default=None, repr=False)
    sku: Id | None = None


class InspectionDefectFound(OrderPayload):
    """Inspection found a defect. Only `severity` "minor" that does not affect use may ever be offered to the
    customer; any other word is for a person."""

    TYPE: ClassVar[str] = "inspection.defect_found.v1"

    sku: Id
    kind: Word
    severity: Word
    affects_use: Flag
    description: LongText
    photos: Photos = ()
    replacement_available: Flag
    line_id: Id | None = None


class DeclarationScope(StrEnum):
    WAREHOUSE = "warehouse"
    SKU = "sku"
    HUB = "hub"
    ORDERS = "orders"


class TroubleDeclared(Payload):
    """Operators know before events do. Counts as evidence like an event. `by` is who declared it."""

    TYPE: ClassVar[str] = "trouble.declared.v1"
    TOPIC: ClassVar[str] = topics.DECLARATIONS
    KEY: ClassVar[tuple[str, ...]] = ("scope",)

    scope: DeclarationScope
    ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=10_000)]
    new_date: UtcTime | None = None
    cause: Word
    reason: LongText
    by: Text
    store_id: Id | None = None


class RemedyOutcome(Payload):
    """The order system's answer to a requested remedy, done or failed `at` that time."""

    TOPIC: ClassVar[str] = topics.REMEDIES
    KEY: ClassVar[tuple[str, ...]] = ("order_id", "remedy_id")

    remedy_id: Id
    at: UtcTime
    detail: LongText | None = None
    order_id: Id | None = None
    store_id: Id | None = None


class RemedyCompleted(RemedyOutcome):
    TYPE: ClassVar[str] = "remedy.completed.v1"


class RemedyFailed(RemedyOutcome):
    TYPE: ClassVar[str] = "remedy.failed.v1"
