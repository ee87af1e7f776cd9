"""What the models themselves promise."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from shared.events.contacts import Contact, Recipient, RecipientKind
from shared.events.incidents import CAUSES, Cause, Scenario
from shared.events.orders import Line, OrderRefunded
from shared.events.parcels import ParcelScanned, ParcelStatus


@pytest.mark.parametrize(
    ("refund", "whole"),
    [
        (OrderRefunded(order_id="O-1"), True),
        (OrderRefunded(order_id="O-1", amount=Decimal("100")), None),
        (OrderRefunded(order_id="O-1", amount=Decimal("99.99")), None),
        (OrderRefunded(order_id="O-1", amount=Decimal("0")), False),
        (OrderRefunded(order_id="O-1", lines=("1", "2")), None),
        (OrderRefunded(order_id="O-1", lines=("1",)), None),
        (OrderRefunded(order_id="O-1", lines=()), False),
        (OrderRefunded(order_id="O-1", amount=Decimal("100"), lines=("1",)), None),
        (OrderRefunded(order_id="O-1", amount=Decimal("5"), lines=("1", "2")), None),
        (OrderRefunded(order_id="O-1", reason="price_protection"), False),
    ],
)
def test_a_refund_knows_whether_it_is_whole(refund: OrderRefunded, whole: bool | None) -> None:
    assert refund.whole is whole


def test_a_sealed_recipient_is_a_contact() -> None:
    sealed = Recipient(kind=RecipientKind.PHONE, sealed="c2VhbGVk", lookup="ab" * 16)
    assert sealed.contact == Contact(kind=RecipientKind.PHONE, sealed="c2VhbGVk", lookup="ab" * 16)
    assert Recipient(kind=RecipientKind.PHONE, value="13800138000").contact is None


def test_a_shipping_delay_never_names_the_courier() -> None:
    assert not [cause for cause in CAUSES[Scenario.SHIPPING_DELAY] if cause.startswith("carrier")]
    assert CAUSES.keys() == set(Scenario)
    assert set().union(*CAUSES.values()) == set(Cause)


def test_there_are_nine_statuses() -> None:
    assert len(ParcelStatus) == 9


def test_models_are_built_from_values_too() -> None:
    at = datetime(2026, 11, 11, tzinfo=UTC)
    scan = ParcelScanned(tracking_no="SF1", status=ParcelStatus.IN_TRANSIT, scanned_at=at)
    assert scan.scanned_at is at
    assert scan.key == "SF1"
    assert scan.model_copy(update={"order_id": "O-1"}).key == "O-1"
    line = Line(sku="x", name="", variant="", quantity=1, unit_price=Decimal("1E+2"))
    assert line.model_dump(mode="json")["unit_price"] == "100"


@pytest.mark.parametrize("price", [Decimal("-1"), Decimal("NaN"), Decimal("Infinity"), 1.0, 1])
def test_money_is_an_amount(price: object) -> None:
    with pytest.raises(ValidationError):
        Line.model_validate({"sku": "x", "name": "", "variant": "", "quantity": 1, "unit_price": price})


def test_events_do_not_change() -> None:
    refund = OrderRefunded(order_id="O-1")
    with pytest.raises(ValidationError):
        refund.order_id = "O-2"
