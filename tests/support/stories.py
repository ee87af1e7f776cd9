"""One order's life as events, for tests of any layer."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.events.contacts import Recipient, RecipientKind
from shared.events.envelope import Event, event
from shared.events.orders import (
    Customer,
    Line,
    OrderCancelled,
    OrderDelivered,
    OrderKind,
    OrderPacked,
    OrderPaid,
    OrderPromiseChanged,
    OrderRefunded,
    OrderShipEstimated,
    OrderShipped,
)
from shared.events.parcels import ParcelScanned, ParcelStatus

PHONE = "13812345678"
START = datetime(2026, 12, 12, 0, 0, tzinfo=UTC)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


class Order:
    """Builds events of one order; `at` is hours after START, ids count up by kind so that a repeat is a repeat."""

    def __init__(self, order_id: str = "T1001", source: str = "test/shop") -> None:
        self.order_id = order_id
        self.source = source

    def _event(self, data: Any, at: float, name: str) -> Event[Any]:
        return event(data, id=f"{self.order_id}-{name}", source=self.source, time=START + hours(at))

    def paid(
        self, at: float = 0, *, promise: float | None = 48, lines: int = 1, kind: OrderKind = OrderKind.STOCK
    ) -> Event[OrderPaid]:
        data = OrderPaid(
            order_id=self.order_id,
            store_id="shop-1",
            customer=Customer(
                id="c-7", nickname="小鱼", recipients=(Recipient(kind=RecipientKind.PHONE, value=PHONE),)
            ),
            lines=tuple(
                Line(line_id=f"L{n}", sku=f"SKU-{n}", name="羊绒围巾", variant="雾蓝", quantity=1, unit_price="129.00")  # type: ignore[arg-type]
                for n in range(1, lines + 1)
            ),
            total=f"{129 * lines}.00",  # type: ignore[arg-type]
            currency="CNY",
            paid_at=START + hours(at),
            promise_ship_by=None if promise is None else START + hours(promise),
            kind=kind,
        )
        return self._event(data, at, "paid")

    def promise(self, at: float, ship_by: float) -> Event[Any]:
        data = OrderPromiseChanged(order_id=self.order_id, promise_ship_by=START + hours(ship_by))
        return self._event(data, at, f"promise-{at}")

    def estimate(
        self,
        at: float,
        ship_at: float,
        cause: str | None = "warehouse_backlog",
        *,
        lines: tuple[str, ...] | None = None,
    ) -> Event[Any]:
        data = OrderShipEstimated(order_id=self.order_id, ship_at=START + hours(ship_at), cause=cause, lines=lines)
        return self._event(data, at, f"estimate-{at}-{ship_at}{_about(lines)}")

    def packed(self, at: float, lines: tuple[str, ...] | None = None) -> Event[Any]:
        return self._event(OrderPacked(order_id=self.order_id, lines=lines), at, f"packed-{at}{_about(lines)}")

    def shipped(self, at: float, *, tracking_no: str = "", lines: tuple[str, ...] | None = None) -> Event[Any]:
        number = tracking_no or f"SF-{self.order_id}"
        data = OrderShipped(
            order_id=self.order_id, carrier="sf", tracking_no=number, shipped_at=START + hours(at), lines=lines
        )
        return self._event(data, at, f"shipped-{number}{_about(lines)}")

    def delivered(self, at: float, lines: tuple[str, ...] | None = None) -> Event[Any]:
        return self._event(OrderDelivered(order_id=self.order_id, lines=lines), at, f"delivered{_about(lines)}")

    def cancelled(self, at: float, lines: tuple[str, ...] | None = None) -> Event[Any]:
        return self._event(OrderCancelled(order_id=self.order_id, lines=lines), at, f"cancelled-{at}")

    def refunded(
        self, at: float, amount: str | None = None, lines: tuple[str, ...] | None = None, reason: str | None = None
    ) -> Event[Any]:
        data = OrderRefunded(order_id=self.order_id, amount=amount, lines=lines, reason=reason)  # type: ignore[arg-type]
        return self._event(data, at, f"refunded-{at}")

    def scan(
        self, at: float, status: ParcelStatus = ParcelStatus.IN_TRANSIT, *, named: bool = True, tracking_no: str = ""
    ) -> Event[Any]:
        data = ParcelScanned(
            tracking_no=tracking_no or f"SF-{self.order_id}",
            order_id=self.order_id if named else None,
            status=status,
            scanned_at=START + hours(at),
        )
        return self._event(data, at, f"scan-{at}-{named}")


def _about(lines: tuple[str, ...] | None) -> str:
    return "" if lines is None else "-" + "+".join(lines)
