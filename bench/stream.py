"""A stream of orders as a shop sends it: paid, estimated, shipped, scanned; random ids, many orders under way at once.

The same seed gives the same stream. Exactly 2 % of the orders are late: the warehouse says twice when it will ship, the
second time after the promise, and the parcel is announced but does not move. Each of these opens one incident and keeps
it open, however the stream is cut into batches and whichever topic is read first.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from shared.bus.port import Message
from shared.events import topics
from shared.events.base import format_time

LATE_SHARE: Final = 0.02
STEPS: Final = 4
BEGINS: Final = ((0.0, 0.0), (0.05, 0.15), (0.20, 0.40), (0.55, 0.75))
"""When each of an order's four events comes after its payment, least and most, as a share of all payments' duration."""

SOURCE: Final = "shop/oms"
CARRIER_SOURCE: Final = "carriers/sf"
_CAUSES: Final = ("order_volume", "warehouse_backlog", "supplier_late")
_CITIES: Final = (("广东省", "深圳市"), ("浙江省", "杭州市"), ("四川省", "成都市"), ("北京市", "北京市"))
_GOODS: Final = ("羽绒服 女 中长款 加厚", "蓝牙耳机 降噪 长续航", "电饭煲 4L 智能预约", "儿童积木 大颗粒 120 片")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Order:
    """What is drawn for one order."""

    order_id: str
    late: bool
    paid_at: datetime
    promise: datetime
    goods: int
    pieces: int


class Item(NamedTuple):
    """One event of the stream. `opens` is set on the one that opens an incident."""

    topic: str
    order_id: str
    event_id: str
    type: str
    body: bytes
    time: datetime
    opens: bool

    def message(self, time: datetime | None = None) -> Message:
        """In binary CloudEvents mode, keyed by the order; `time` instead of the planned one."""
        source = CARRIER_SOURCE if self.topic == topics.TRACKING else SOURCE
        headers = (
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_id", self.event_id.encode()),
            ("ce_source", source.encode()),
            ("ce_type", self.type.encode()),
            ("ce_time", format_time(time or self.time).encode()),
        )
        return Message(self.topic, self.order_id.encode(), self.body, headers)


class Stream:
    """`events` events of `events / 4` orders that happened in the hour before `until`."""

    def __init__(self, events: int, seed: int, until: datetime) -> None:
        rng = random.Random(seed)
        count = events // STEPS
        begin = until - timedelta(hours=1)
        late = frozenset(rng.sample(range(count), round(count * LATE_SHARE)))
        self.events = count * STEPS
        self.incidents = len(late)
        self._orders: list[Order] = []
        self._plan: list[tuple[float, int, int]] = []
        self._second = timedelta(hours=1) / 1.75
        self._begin = begin
        for index in range(count):
            at = index / count
            paid_at = begin + self._second * at
            self._orders.append(
                Order(
                    order_id=f"{rng.randrange(10**17, 10**18)}",
                    late=index in late,
                    paid_at=paid_at,
                    promise=paid_at + timedelta(hours=rng.randint(48, 72)),
                    goods=rng.randrange(len(_GOODS)),
                    pieces=rng.randint(1, 2),
                )
            )
            self._plan.extend((at + rng.uniform(*BEGINS[step]), index, step) for step in range(STEPS))
        self._plan.sort()

    def __iter__(self) -> Iterator[Item]:
        for at, index, step in self._plan:
            order = self._orders[index]
            kind, body = _KINDS[step](order) if not order.late else _LATE_KINDS[step](order)
            topic = topics.TRACKING if kind.startswith("parcel.") else topics.ORDERS
            time = self._begin + self._second * at
            yield Item(topic, order.order_id, f"{order.order_id}-{step}", kind, body, time, order.late and step == 2)


def paid(order: Order) -> tuple[str, bytes]:
    """About 600 bytes: the bulk of what an order system sends."""
    number = int(order.order_id)
    province, city = _CITIES[number % len(_CITIES)]
    lines = [
        {
            "sku": f"SKU-{number % 9973:05d}-{piece}",
            "name": _GOODS[order.goods],
            "variant": "黑色 M",
            "quantity": 1,
            "unit_price": "129.00",
        }
        for piece in range(order.pieces)
    ]
    return "order.paid.v1", _encode(
        {
            "order_id": order.order_id,
            "store_id": "tm-flagship",
            "customer": {
                "id": f"c{number % 10**9}",
                "nickname": f"小{number % 97}的猫",
                "language": "zh-CN",
                "recipients": [{"kind": "phone", "value": f"1{number % 10**10:010d}"}],
            },
            "lines": lines,
            "total": f"{129 * order.pieces}.00",
            "currency": "CNY",
            "paid_at": format_time(order.paid_at),
            "promise_ship_by": format_time(order.promise),
            "warehouse": f"wh-{number % 7}",
            "ship_to": {"province": province, "city": city},
            "campaign": "double-12",
        }
    )


def _estimated(order: Order) -> tuple[str, bytes]:
    return _estimate(order, order.promise - timedelta(hours=20))


def _estimated_late(order: Order) -> tuple[str, bytes]:
    return _estimate(order, order.promise + timedelta(hours=30), _CAUSES[int(order.order_id) % len(_CAUSES)])


def _estimate(order: Order, ship_at: datetime, cause: str | None = None) -> tuple[str, bytes]:
    body = {"order_id": order.order_id, "store_id": "tm-flagship", "ship_at": format_time(ship_at)}
    return "order.ship_estimated.v1", _encode({**body, "cause": cause} if cause else body)


def _shipped(order: Order) -> tuple[str, bytes]:
    return "order.shipped.v1", _encode(
        {
            "order_id": order.order_id,
            "store_id": "tm-flagship",
            "carrier": "sf",
            "tracking_no": f"SF{order.order_id}",
            "shipped_at": format_time(order.paid_at + timedelta(minutes=30)),
            "expected_delivery": format_time(order.promise + timedelta(days=2)),
        }
    )


def _scanned(order: Order) -> tuple[str, bytes]:
    return _scan(order, "InTransit")


def _announced(order: Order) -> tuple[str, bytes]:
    return _scan(order, "InfoReceived")


def _scan(order: Order, status: str) -> tuple[str, bytes]:
    return "parcel.scanned.v1", _encode(
        {
            "tracking_no": f"SF{order.order_id}",
            "order_id": order.order_id,
            "carrier": "sf",
            "status": status,
            "place": "深圳宝安集散中心",
            "description": "快件已到达 深圳宝安集散中心",
            "scanned_at": format_time(order.paid_at + timedelta(minutes=45)),
        }
    )


_KINDS: Final = (paid, _estimated, _shipped, _scanned)
_LATE_KINDS: Final = (paid, _estimated, _estimated_late, _announced)
