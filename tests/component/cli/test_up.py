"""One running `headsup up`: what goes in, what comes out, and what the other commands say about it."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.component.cli.support import PHONE, Cli, Instance, garbage, paid

HOUR = timedelta(hours=1)


def test_a_late_order_becomes_an_incident(instance: Instance) -> None:
    late, fine = paid(HOUR), paid(72 * HOUR)
    assert instance.publish(late, fine) == {"published": 2, "refused": 0, "errors": []}
    [(kind, body)] = instance.eventually(lambda: instance.incidents(late["data"]["order_id"]))
    assert kind == "incident.opened.v1"
    assert body["scenario"] == "shipping_delay"
    assert not instance.incidents(fine["data"]["order_id"])


def test_no_phone_is_stored_in_the_clear(instance: Instance) -> None:
    events = [paid(HOUR), paid(HOUR)]
    instance.publish(events[0])
    assert instance.http.post("/v1/events", json=events[1]).status_code == 202
    instance.eventually(lambda: all(instance.incidents(event["data"]["order_id"]) for event in events))
    for headers, body in instance.log_of("headsup.orders.v1") + instance.log_of("headsup.incidents.v1"):
        assert PHONE not in json.dumps([headers, body])
    assert not instance.query("SELECT 1 FROM detector.orders WHERE position($1 in payment) > 0", PHONE.encode())


def test_events_by_rest(instance: Instance) -> None:
    good, bad, unknown = paid(HOUR), paid(HOUR, total=9.0), {**paid(HOUR), "type": "order.eaten.v1"}
    ours = {**paid(HOUR), "type": "incident.opened.v1", "data": {}}
    answer = instance.http.post(
        "/v1/events",
        content=json.dumps([good, bad, unknown, ours]),
        headers={"content-type": "application/cloudevents-batch+json", "idempotency-key": "k1"},
    )
    assert answer.status_code == 202
    told = answer.json()
    assert (told["accepted"], told["rejected"]) == (1, 3)
    assert [e["status"] for e in told["events"]] == ["accepted", "rejected", "rejected", "rejected"]
    assert [e.get("field") for e in told["events"]][:3] == [None, "total", "type"]
    instance.eventually(lambda: instance.incidents(good["data"]["order_id"]))


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("[]", "application/json", 400),
        ("{", "application/json", 400),
        ("[1]", "application/json", 400),
        ('{"specversion": "0.3", "id": "1", "source": "s", "type": "order.paid.v1"}', "application/json", 400),
        ('{"specversion": "1.0", "id": "", "source": "s", "type": "order.paid.v1"}', "application/json", 400),
        ("[" + ",".join(["{}"] * 1001) + "]", "application/json", 400),
        ("[" * 100_000, "application/json", 400),
        (" " * (8 * 1024 * 1024 + 1), "application/json", 400),
        ("{}", "text/plain", 415),
    ],
    ids=["empty", "no-json", "no-object", "version", "no-id", "too-many", "deep", "too-large", "content-type"],
)
def test_requests_that_are_refused_whole(instance: Instance, content: str, kind: str, status: int) -> None:
    answer = instance.http.post("/v1/events", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= answer.json().keys()


def test_nobody_comes_in_without_the_key(instance: Instance) -> None:
    for headers in ({}, {"Authorization": "Bearer hu_wrong"}, {"Authorization": f"Basic {instance.key}"}):
        answer = httpx.post(f"{instance.url}/v1/events", json=paid(HOUR), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
    assert instance.key not in (instance.data / "api-key.sha256").read_text()


def test_health_metrics_and_errors(instance: Instance) -> None:
    assert instance.http.get("/livez").json() == {"status": "alive"}
    assert "headsup_lag_records" in instance.http.get("/metrics").text
    assert instance.http.get("/docs").status_code == 200
    assert instance.http.get("/nowhere").headers["content-type"] == "application/problem+json"
    assert instance.http.get("/v1/clock").json()["virtual"] is False
    assert instance.http.post("/v1/clock/advance", json={"seconds": 1}).status_code == 404


def test_what_it_keeps_is_private(instance: Instance) -> None:
    for name in ("secret", "running.json", "api-key.sha256"):
        assert (instance.data / name).stat().st_mode & 0o077 == 0, name


def test_refused_lines_are_told_by_number(instance: Instance, tmp_path: Path) -> None:
    good, bad = paid(HOUR), paid(HOUR, total="nine")
    file = tmp_path / "events.jsonl"
    lines = [json.dumps(good), "", "{no json", json.dumps(bad), "x" * 3_000_000, json.dumps(paid(HOUR))]
    file.write_text("\n".join(lines))
    told = instance.failing("publish", str(file))
    assert (told["published"], told["refused"]) == (2, 3)
    assert [(e["line"], e["field"]) for e in told["errors"]] == [(3, ""), (4, "total"), (5, "")]
    done = instance.run("publish", str(file))
    assert done.returncode == 1
    assert "2 published, 3 refused" in done.stdout
    assert "nine" not in done.stdout + done.stderr
    instance.eventually(lambda: instance.incidents(good["data"]["order_id"]))


def test_lag(instance: Instance) -> None:
    instance.publish(paid(HOUR))
    rows = instance.eventually(lambda: [r for r in instance.json("lag") if r["applied"]])
    assert "detector" in {r["service"] for r in rows}
    assert instance.eventually(lambda: sum(r["lag"] for r in instance.json("lag")) == 0)
    assert all(r["halted"] is None and r["seconds"] >= 0 for r in rows)
    assert instance.eventually(
        lambda: all(r["committed"] == r["applied"] for r in instance.json("lag") if r["applied"])
    )
    assert "headsup.orders.v1" in instance.run("lag").stdout


def test_dead_letters(instance: Instance) -> None:
    instance.append(*garbage(1, "dead-letters"))
    readers = ["detector", "dispatcher", "followup"]  # of the orders' topic: each refuses what none can read

    def refused() -> list[dict[str, Any]]:
        found = instance.json("dead-letters", "list")
        return found if all(sorted(letter["services"]) == readers for letter in found) else []

    [letter] = instance.eventually(refused)
    assert letter["topic"] == "headsup.orders.v1"
    assert "JSON" in letter["reason"] or "CloudEvent" in letter["reason"]
    shown = instance.json("dead-letters", "show", letter["id"])
    assert shown["headers"]["x-from"] == "a broken producer"
    assert PHONE not in json.dumps(shown)
    assert PHONE in instance.json("dead-letters", "show", letter["id"], "--reveal")["body"]
    assert letter["id"] in instance.run("dead-letters", "list").stdout
    assert instance.run("dead-letters", "show", letter["id"]).returncode == 0

    assert instance.json("dead-letters", "retry", letter["id"]) == {"retried": 1}
    [again] = instance.eventually(refused)
    assert again["id"] != letter["id"]
    assert len(instance.json("dead-letters", "list", "--all")) == 2
    assert instance.json("dead-letters", "retry", "--all") == {"retried": 1}
    assert instance.run("dead-letters", "retry").returncode == 2
    assert instance.run("dead-letters", "show", "0" * 32).returncode == 1


def test_doctor_finds_nothing_wrong(instance: Instance) -> None:
    told = instance.json("doctor")
    assert told["ok"] is True
    assert {"settings", "database", "bus", "secret"} <= {check["name"] for check in told["checks"]}
    assert "✓" in instance.run("doctor").stdout


def test_resume_where_nothing_is_halted(instance: Instance) -> None:
    assert instance.run("resume", "headsup.orders.v1", "0").returncode == 1
    assert instance.run("resume", "orders").returncode == 2
    assert instance.run("resume", "nobody", "headsup.orders.v1", "0").returncode == 2


def test_a_second_one_on_the_same_folder_is_refused(instance: Instance, cli: Cli) -> None:
    done = cli("up", "--data", str(instance.data), "--port", "0")
    assert done.returncode == 1
    assert f"in use by process {instance.told['pid']}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(instance: Instance, cli: Cli, folder: Path) -> None:
    done = cli("up", "--data", str(folder), "--port", instance.url.rpartition(":")[2])
    assert done.returncode == 1
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_preparing_a_running_instance_changes_nothing(instance: Instance) -> None:
    assert instance.json("topics", "apply") == {"changes": []}
    assert "detector" in instance.json("db", "migrate")["schemas"]
