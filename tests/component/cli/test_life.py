"""Starting, stopping, crashing, halting, and time that is moved by hand."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.component.cli.support import Cli, Instance, garbage, paid

HOUR = timedelta(hours=1)
Start = Callable[..., Instance]


def test_killed_then_taken_over_then_stopped(start: Start, cli: Cli, folder: Path) -> None:
    first = start(folder)
    before = paid(HOUR)
    first.publish(before)
    first.eventually(lambda: first.incidents(before["data"]["order_id"]))
    first.kill()
    assert cli("lag", "--data", str(folder)).returncode == 1  # nothing is running, says so

    second = start(folder, HEADSUP_API_KEY="0123456789abcdef")
    assert "key" not in second.told
    assert len(second.incidents(before["data"]["order_id"])) == 1
    after = paid(HOUR)
    second.publish(after)
    second.eventually(lambda: second.incidents(after["data"]["order_id"]))
    assert second.http.get("/v1/clock", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200
    assert second.http.get("/v1/clock", headers={"Authorization": f"Bearer {first.key}"}).status_code == 401
    assert second.stop() == 0
    assert not (folder / "running.json").exists()

    done = cli("publish", "-", "--data", str(folder), stdin=json.dumps(paid(HOUR)))
    assert done.returncode == 1
    assert "headsup up" in done.stderr


def test_a_storm_halts_and_resume_goes_on(start: Start, folder: Path) -> None:
    instance = start(folder)
    instance.append(*garbage(120, "storm"))
    readers = ("detector", "dispatcher", "followup")  # of the orders' topic: each halts by itself

    def halted() -> list[dict[str, Any]]:
        found = [row for row in instance.lag() if row["halted"]]
        return found if len(found) == len(readers) else []

    rows = instance.eventually(halted)
    assert sorted(row["service"] for row in rows) == sorted(readers)
    assert {(row["applied"], row["lag"]) for row in rows} == {(50, 70)}
    row = rows[0]
    assert instance.http.get("/readyz").status_code == 503
    assert instance.run("lag").returncode == 1
    told = instance.cli.failing("doctor", "--data", str(folder), HEADSUP_SECRET="A" * 43 + "=")
    assert {check["name"] for check in told["checks"] if not check["ok"]} == {"secret", "partitions"}

    told = instance.json("resume", "detector", row["topic"], str(row["partition"]), "--accept")
    assert told == {"resumed": [f"detector {row['topic']}[{row['partition']}]"]}
    assert len(instance.json("resume", "--all", "--accept")["resumed"]) == len(readers) - 1
    instance.eventually(lambda: all(r["lag"] == 0 for r in instance.lag()))
    instance.eventually(lambda: instance.http.get("/readyz").status_code == 200)
    assert len(instance.json("dead-letters", "list", "--limit", "1000")) == 120
    assert instance.failing("resume", "--all") == {"resumed": []}


def test_virtual_time(start: Start, cli: Cli, folder: Path) -> None:
    began = datetime(2026, 11, 11, tzinfo=UTC)
    instance = start(folder, "--clock", "virtual:2026-11-11T08:00:00+08:00")
    assert instance.http.get("/v1/clock").json() == {"now": "2026-11-11T00:00:00Z", "virtual": True, "speed": 0.0}
    late, shipped = paid(48 * HOUR, began), paid(48 * HOUR, began)
    instance.publish(late, shipped)
    sent = {"order_id": shipped["data"]["order_id"], "carrier": "SF", "tracking_no": "SF1"}
    sent["shipped_at"] = (began + HOUR).isoformat()
    departure = {**shipped, "id": "d1", "type": "order.shipped.v1", "data": sent, "time": sent["shipped_at"]}

    def advance(hours: float) -> datetime:
        answer = instance.http.post("/v1/clock/advance", json={"seconds": hours * 3600})
        assert answer.status_code == 200, answer.text
        return datetime.fromisoformat(answer.json()["now"])

    assert advance(30) == began + 30 * HOUR
    assert not instance.incidents(late["data"]["order_id"])
    assert instance.http.post("/v1/events", json=departure).status_code == 202
    assert advance(7) == began + 37 * HOUR
    # Nothing to wait for: `advance` comes back when all of it is done.
    [(kind, body)] = instance.incidents(late["data"]["order_id"])
    assert kind == "incident.opened.v1"
    assert datetime.fromisoformat(body["detected_at"]) == began + 36 * HOUR
    assert not instance.incidents(shipped["data"]["order_id"])
    assert advance(12) == began + 49 * HOUR
    assert instance.incidents(late["data"]["order_id"])[-1][1]["breached"] is True
    assert instance.http.post("/v1/clock/advance", json={"seconds": -1}).status_code == 422
    assert instance.json("lag")
    assert instance.stop() == 0

    again = start(folder, "--clock", "virtual:2026-11-11T00:00:00Z", HEADSUP_API_KEY="0123456789abcdef")
    assert datetime.fromisoformat(again.told["now"]) >= began + 49 * HOUR
    assert again.stop() == 0


def test_virtual_time_with_a_speed(start: Start, folder: Path) -> None:
    instance = start(folder, "--clock", "virtual@36000")
    now = datetime.fromisoformat(instance.http.get("/v1/clock").json()["now"])
    late = paid(36 * HOUR, now)
    instance.publish(late)
    instance.eventually(lambda: instance.incidents(late["data"]["order_id"]))


def test_real_time_does_not_go_on_where_virtual_time_has_been(start: Start, cli: Cli, folder: Path) -> None:
    instance = start(folder, "--clock", "virtual")
    assert instance.http.post("/v1/clock/advance", json={"seconds": 86_400}).status_code == 200
    assert instance.stop() == 0
    done = cli("up", "--data", str(folder), "--port", "0")
    assert done.returncode == 1
    assert "--clock virtual" in done.stderr
