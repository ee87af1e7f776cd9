"""What carriers' feeds and aggregators tell us about parcels."""

from enum import StrEnum
from typing import ClassVar

from shared.events import topics
from shared.events.base import Id, LongText, Payload, Text, UtcTime, Word


class ParcelStatus(StrEnum):
    """AfterShip's nine delivery statuses, by their own names."""

    PENDING = "Pending"
    INFO_RECEIVED = "InfoReceived"
    IN_TRANSIT = "InTransit"
    OUT_FOR_DELIVERY = "OutForDelivery"
    ATTEMPT_FAIL = "AttemptFail"
    DELIVERED = "Delivered"
    AVAILABLE_FOR_PICKUP = "AvailableForPickup"
    EXCEPTION = "Exception"
    EXPIRED = "Expired"


class ParcelPayload(Payload):
    """An event about one parcel. A feed that does not know the order leaves `order_id` out: readers park the
    event until an order names the tracking number."""

    TOPIC: ClassVar[str] = topics.TRACKING
    KEY: ClassVar[tuple[str, ...]] = ("order_id", "tracking_no")

    tracking_no: Id
    order_id: Id | None = None
    store_id: Id | None = None
    carrier: Word | None = None


class ParcelScanned(ParcelPayload):
    """`scanned_at` is the scan's own time, which a polled feed may report hours later."""

    TYPE: ClassVar[str] = "parcel.scanned.v1"

    status: ParcelStatus
    sub_status: Word | None = None
    place: Text | None = None
    description: LongText | None = None
    scanned_at: UtcTime


class ParcelEtaChanged(ParcelPayload):
    TYPE: ClassVar[str] = "parcel.eta_changed.v1"

    expected_delivery: UtcTime
    cause: Word | None = None
