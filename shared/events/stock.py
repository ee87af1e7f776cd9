"""What stock systems tell us about SKUs."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, Strict

from shared.events import topics
from shared.events.base import Currency, Flag, Id, Money, Part, Payload, Tags, Text, Url, UtcTime, Word


class SubstituteKind(StrEnum):
    """Another colour or size of the same item, or the better model."""

    VARIANT = "variant"
    UPGRADE = "upgrade"


class Substitute(Part):
    """What may be offered instead. `advantage` is what makes it good, in words for the customer."""

    sku: Id
    kind: SubstituteKind
    advantage: Text = ""


class SkuPayload(Payload):
    TOPIC: ClassVar[str] = topics.INVENTORY
    KEY: ClassVar[tuple[str, ...]] = ("sku",)

    sku: Id
    store_id: Id | None = None


class StockLevelChanged(SkuPayload):
    """`on_hand` counts units that are held for unshipped orders too; sellable stock is something else and has
    no field here. Below zero is what oversold systems report. Without `restock_at` no restock is known."""

    TYPE: ClassVar[str] = "stock.level_changed.v1"

    on_hand: Annotated[int, Strict(), Field(ge=-1_000_000_000, le=1_000_000_000)]
    restock_at: UtcTime | None = None
    discontinued: Flag
    cause: Word | None = None
    warehouse: Id | None = None


class SkuDescribed(SkuPayload):
    """What the shop sells under this SKU. The tags "hot" and "limited" raise compensation."""

    TYPE: ClassVar[str] = "sku.described.v1"

    name: Text
    variant: Text
    price: Money
    currency: Currency | None = None
    image_url: Url | None = None
    tags: Tags = ()
    substitutes: Annotated[tuple[Substitute, ...], Field(max_length=50)] = ()
