"""What a shop's systems, its people and its customers do, told by REST."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.component.cli.support import Instance

KEY = "an-acceptance-key"
HOUR = 3600
SHANGHAI = timezone(timedelta(hours=8))


@dataclass
class Shop:
    """One store of a running installation. `now` is its virtual time; events happen at it."""

    instance: Instance
    store_id: str
    phone: str
    count: int = field(default=0)

    @property
    def now(self) -> datetime:
        return datetime.fromisoformat(self.get("/v1/clock")["now"])

    def get(self, path: str, **params: Any) -> Any:
        answer = self.instance.http.get(path, params=params)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json()

    def post(self, path: str, body: Any = None, wanted: tuple[int, ...] = (200, 201, 202)) -> Any:
        answer = self.instance.http.post(path, json=body if body is not None else {})
        assert answer.status_code in wanted, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def advance(self, hours: float = 0.001) -> None:
        """Let time pass, with everything that becomes due on the way."""
        answer = self.instance.http.post("/v1/clock/advance", json={"seconds": hours * HOUR})
        assert answer.status_code == 200, answer.text

    def until(self, hour: int) -> None:
        """Let time pass until it is so late in the store's day, today or tomorrow."""
        now = self.now.astimezone(SHANGHAI)
        then = now.replace(hour=hour, minute=0, second=0, microsecond=0)
        if then < now:
            then += timedelta(days=1)
        if then > now:
            self.advance((then - now).total_seconds() / HOUR)

    def event(self, kind: str, **data: Any) -> None:
        self.count += 1
        happened = self.now.isoformat()
        body = {"specversion": "1.0", "id": f"e{self.count}", "source": self.store_id, "type": kind, "time": happened}
        told = self.post("/v1/events", {**body, "data": data})
        assert told["accepted"] == 1, told

    def paid(self, order_id: str, promise_hours: float = 48, phone: str = "", **data: Any) -> None:
        now = self.now
        fields: dict[str, Any] = {
            "order_id": order_id,
            "store_id": self.store_id,
            "customer": {"id": f"c-{order_id}", "nickname": "小鱼", "phone": phone or self.phone},
            "lines": [
                {
                    "line_id": "L1",
                    "sku": "SCARF-BLUE",
                    "name": "羊绒围巾",
                    "short_name": "羊绒围巾",
                    "variant": "雾蓝",
                    "quantity": 1,
                    "unit_price": "129.00",
                }
            ],
            "total": "129.00",
            "currency": "CNY",
            "paid_at": now.isoformat(),
            "promise_ship_by": (now + timedelta(hours=promise_hours)).isoformat(),
        }
        self.event("order.paid.v1", **{**fields, **data})

    def estimate(self, order_id: str, in_hours: float, cause: str = "warehouse_backlog") -> None:
        ship_at = (self.now + timedelta(hours=in_hours)).isoformat()
        self.event("order.ship_estimated.v1", order_id=order_id, ship_at=ship_at, cause=cause)

    def shipped(self, order_id: str) -> None:
        self.event(
            "order.shipped.v1",
            order_id=order_id,
            carrier="sf",
            tracking_no=f"SF{order_id}",
            shipped_at=self.now.isoformat(),
        )

    def late(self, order_id: str, **data: Any) -> None:
        """An order that its warehouse says will leave two days after its promise, told to the customer."""
        self.paid(order_id, **data)
        self.estimate(order_id, 96)
        self.advance()

    def configure(self, **settings: Any) -> None:
        answer = self.instance.http.put(
            f"/v1/stores/{self.store_id}", json={"name": "小鱼家", "modes": {"shipping_delay": "live"}, **settings}
        )
        assert answer.status_code == 200, answer.text
        self.advance()

    def notices(self, order_id: str, purpose: str | None = None) -> list[dict[str, Any]]:
        """Oldest first."""
        found = self.get("/v1/notices", order_id=order_id)["items"]
        return [n for n in reversed(found) if purpose in (None, n["purpose"])]

    def went_out(self, order_id: str) -> list[str]:
        """The purposes of what was sent, oldest first."""
        return [n["purpose"] for n in self.notices(order_id) if n["state"] in ("sent", "delivered")]

    def messages(self, order_id: str, channel: str | None = None) -> list[dict[str, Any]]:
        """What the customer's phone shows."""
        found = self.get("/v1/sandbox/messages", order_id=order_id)["items"]
        return [m for m in found if channel in (None, m["channel"])]

    def case(self, order_id: str) -> dict[str, Any]:
        [one] = self.get("/v1/cases", order_id=order_id)["items"]
        found: dict[str, Any] = self.get(f"/v1/cases/{one['case_id']}")
        return found

    def reply(self, order_id: str, text: str) -> None:
        """The customer reads for a while, then answers."""
        self.advance(0.02)
        self.post(f"/v1/cases/{self.case(order_id)['case_id']}/replies", {"text": text})
        self.advance()

    def tasks(self, order_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        found = self.get("/v1/tasks", order_id=order_id)["items"]
        return [t for t in found if kind in (None, t["kind"])]

    def stop(self, stopped: bool = True) -> None:
        self.post("/v1/stop", {"store_id": self.store_id, "stopped": stopped, "reason": "not yet"})
        self.advance()

    def remedies(self, order_id: str) -> list[dict[str, Any]]:
        log = self.instance.log_of("headsup.remedies.v1")
        asked = [body for headers, body in log if headers["ce_type"] == "remedy.requested.v1"]
        return [body for body in asked if body["order_id"] == order_id]

    def completed(self, order_id: str) -> None:
        """The order system did what it was asked for."""
        [asked] = self.remedies(order_id)
        self.event("remedy.completed.v1", remedy_id=asked["remedy_id"], order_id=order_id, at=self.now.isoformat())
        self.advance()
