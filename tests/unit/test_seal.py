"""An order sealed for keeping: the same whether as a value or written at once."""

import base64
import json
from datetime import UTC, datetime

from shared.events.contacts import Recipient, RecipientKind
from shared.events.orders import OrderPaid
from shared.seal import Sealer

SEALER = Sealer(bytes(range(32)))
PHONE = "13800000001"


def paid(*recipients: Recipient) -> OrderPaid:
    body = {
        "order_id": "o1",
        "store_id": "s1",
        "customer": {"id": "c1", "nickname": "小的猫\u2028", "phone": PHONE},
        "lines": [{"sku": "k1", "name": "锅", "variant": "", "quantity": 2, "unit_price": "64.50"}],
        "total": "129.00",
        "currency": "CNY",
        "paid_at": "2026-10-01T10:00:00.000001+08:00",
        "unknown": PHONE,
    }
    order = OrderPaid.model_validate_json(json.dumps(body))
    customer = order.customer.model_copy(update={"recipients": (*order.customer.recipients, *recipients)})
    return order.model_copy(update={"customer": customer})


def test_written_at_once_is_the_sealed_order() -> None:
    until = datetime(2026, 12, 1, tzinfo=UTC)
    before = Recipient(kind=RecipientKind.OAID, sealed="c2VhbGVk", lookup="0" * 64)
    order = paid(before, Recipient(kind=RecipientKind.CHAT_ID, value="wx-1", expires_at=until))

    text = SEALER.sealed_json(order)
    kept, sealed = OrderPaid.model_validate_json(text), SEALER.sealed(order)

    assert PHONE.encode() not in text
    assert b"wx-1" not in text
    assert _without_nonces(kept) == _without_nonces(sealed)
    assert kept.customer.recipients[1] == before
    assert kept.customer.recipients[2].expires_at == until
    assert kept.customer.recipients[0].lookup == SEALER.lookup("phone", PHONE)


def test_its_addresses_can_be_opened() -> None:
    kept = OrderPaid.model_validate_json(SEALER.sealed_json(paid()))
    contact = kept.customer.recipients[0].contact
    assert contact is not None
    assert SEALER.open(base64.b64decode(contact.sealed)) == PHONE.encode()


def _without_nonces(order: OrderPaid) -> dict[str, object]:
    found = order.model_dump()
    for recipient in found["customer"]["recipients"]:
        recipient["sealed"] = recipient["sealed"] and "…"
    return found
