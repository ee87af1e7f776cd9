"""The follow-up's REST: pages, filters, keys with roles and stores, figures, personal data."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from shared.events.envelope import event
from shared.events.orders import OrderRefundRequested
from shared.events.stores import KeySet, Role
from tests.component.followup.conftest import Rig
from tests.support.cases import CaseStory
from tests.support.running import read_topic
from tests.support.stories import START, hours

PHONE = "13812345678"


async def give_key(rig: Rig, key: str, role: Role, *stores: str) -> dict[str, str]:
    sha = hashlib.sha256(key.encode()).hexdigest()
    data = KeySet(name=key, sha256=sha, role=role, stores=stores or None)
    await rig.publish(event(data, id=key, source="test/console", time=START))
    return {"Authorization": f"Bearer {key}"}


async def test_lists_are_paged_newest_first(rig: Rig) -> None:
    stories = [CaseStory(f"P{n}") for n in range(5)]
    await rig.publish(*(s.opened(n / 100) for n, s in enumerate(stories)))
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await rig.get("/v1/cases", limit=2, **cursor)
        seen += [case["order_id"] for case in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["P4", "P3", "P2", "P1", "P0"]
    assert (await rig.client.get("/v1/tasks", params={"cursor": "nonsense"})).status_code == 400
    assert [c["order_id"] for c in await rig.items("/v1/cases", state="open", store_id="shop-1", limit=1)] == ["P4"]
    assert await rig.items("/v1/cases", state="closed") == []


async def test_a_key_sees_its_own_stores_only(rig: Rig) -> None:
    mine, theirs = CaseStory("M1", "shop-1"), CaseStory("T1", "shop-2")
    await rig.publish(mine.opened(), theirs.opened())
    await rig.at(0.5)
    reader = await give_key(rig, "a-reader-of-shop-1", Role.READ, "shop-1")
    operator = await give_key(rig, "an-operator-of-shop-1", Role.OPERATOR, "shop-1")
    get, post = rig.client.get, rig.client.post
    assert [c["order_id"] for c in (await get("/v1/cases", headers=reader)).json()["items"]] == ["M1"]
    assert [t["store_id"] for t in (await get("/v1/tasks", headers=reader)).json()["items"]] == ["shop-1"]
    assert [g["store_id"] for g in (await get("/v1/stats", headers=reader)).json()["groups"]] == ["shop-1"]
    assert (await get("/v1/cases", params={"store_id": "shop-2"}, headers=reader)).status_code == 403
    assert (await get(f"/v1/cases/{theirs.case_id}", headers=reader)).status_code == 403
    body = {"text": "2"}
    assert (await post(f"/v1/cases/{mine.case_id}/replies", json=body, headers=reader)).status_code == 403
    assert (await post(f"/v1/cases/{theirs.case_id}/replies", json=body, headers=operator)).status_code == 403
    [task] = await rig.items("/v1/tasks", store_id="shop-2")
    assert (await post(f"/v1/tasks/{task['task_id']}/claim", headers=operator)).status_code == 403
    assert (await get("/v1/cases", headers={"Authorization": "Bearer nobody"})).status_code == 401


async def test_what_is_not_there_is_said_so(rig: Rig) -> None:
    assert (await rig.client.get("/v1/cases/nope")).status_code == 404
    assert (await rig.client.post("/v1/cases/nope/replies", json={"text": "2"})).status_code == 404
    assert (await rig.client.post("/v1/tasks/nope/claim")).status_code == 404
    assert (await rig.client.post("/v1/promises/nope/kept")).status_code == 404


async def test_the_same_idempotency_key_is_the_same_reply_and_phones_are_masked(rig: Rig) -> None:
    story = CaseStory()
    await rig.publish(story.opened(), story.composed(0.01), story.sent(0.02))
    await rig.at(0.5)
    path, body = f"/v1/cases/{story.case_id}/replies", {"text": f"打我电话 {PHONE}"}
    first = await rig.post(path, body, 202, **{"Idempotency-Key": "k-1"})
    again = await rig.post(path, body, 202, **{"Idempotency-Key": "k-1"})
    other = await rig.post(path, body, 202)
    assert first == again != other
    [case] = await rig.items("/v1/cases")
    assert case["replies"] == 2
    everything = str([r.value for r in await read_topic(rig.bus, "headsup.replies.v1")])
    async with rig.database.transaction() as connection:
        from sqlalchemy import text

        for table in ("cases", "timeline", "tasks"):
            rows = await connection.execute(text(f"SELECT t::text FROM followup.{table} t"))
            everything += str(list(rows))
        rows = await connection.execute(text("SELECT convert_from(facts, 'UTF8') FROM followup.cases"))
        everything += str(list(rows))
    assert PHONE not in everything
    assert "5678" in everything


async def test_phones_in_the_shops_words_are_masked(rig: Rig) -> None:
    story = CaseStory()
    applied = OrderRefundRequested(order_id=story.order_id, reason=f"打我电话 {PHONE}")
    await rig.publish(story.opened(), story.composed(0.01), story.sent(0.02))
    await rig.at(0.1, event(applied, id="r", source="test/shop", time=START + hours(0.1)))
    await rig.at(0.2, story.reply(0.2, "2"), story.remedy_failed(0.2, f"payee {PHONE} is unknown"))
    [task] = await rig.items("/v1/tasks", kind="remedy_failed")
    assert task["reason"].endswith("payee …5678 is unknown")
    assert [t["state"] for t in await rig.items("/v1/tasks", kind="asked_first")] == ["done"]
    whole = str(await rig.get(f"/v1/cases/{story.case_id}"))
    assert "打我电话 …5678" in whole
    assert PHONE not in whole


async def test_a_claimed_task_is_anothers_no_more(rig: Rig) -> None:
    story = CaseStory()
    await rig.publish(story.opened())
    await rig.at(0.5)
    bert = await give_key(rig, "bert-the-operator", Role.OPERATOR)
    [task] = await rig.items("/v1/tasks")
    path = f"/v1/tasks/{task['task_id']}"
    await rig.post(f"{path}/claim")
    assert (await rig.client.post(f"{path}/claim", headers=bert)).status_code == 409
    assert (await rig.client.post(f"{path}/answer", json={"number": 1}, headers=bert)).status_code == 409
    done = await rig.client.post(f"{path}/done", json={"note": "called"}, headers=bert)
    assert (done.json()["state"], done.json()["done_by"], done.json()["note"]) == (
        "done",
        "bert-the-operator",
        "called",
    )
    await rig.at(1.5)
    assert [t["urgency"] for t in await rig.items("/v1/tasks", state="open")] == [3], "still not out: raised anew"


async def test_figures_by_store_and_scenario(rig: Rig) -> None:
    stories = [CaseStory(f"F{n}") for n in range(4)]
    for story in stories:
        await rig.publish(story.opened(), story.composed(0.01))
    await rig.at(0.5, stories[0].sent(0.5))
    await rig.at(1, stories[1].sent(1), stories[0].reply(1, "2"), stories[1].reply(1, "1"))
    await rig.at(1.5, stories[0].remedied(1.5))
    await rig.at(2.5, stories[2].sent(2.5))
    found = await rig.get("/v1/stats")
    [group] = found["groups"]
    assert (group["incidents"], group["told"], group["replies"]) == (4, 3, 2)
    assert group["choices"] == {"refund": 1, "wait": 1}
    assert group["detected_to_contacted_seconds"]["median"] == 3600
    assert 3600 < group["detected_to_contacted_seconds"]["p95"] <= 9000
    assert round(group["within_2h"], 3) == 0.667
    assert (group["promises"]["kept"], group["promises"]["open"]) == (1, 3)
    assert group["compensation"] == "10"
    assert found["promise_kinds"] == [
        {"store_id": "shop-1", "kind": "refund", "settled": 1, "kept": 1, "share": 1.0, "downgraded": False}
    ]
    assert found["open_tasks"] == len(await rig.items("/v1/tasks", state="open")) > 0
    late = (START + hours(1)).isoformat()
    assert (await rig.get("/v1/stats", **{"from": late}))["groups"] == []
    assert (await rig.get("/v1/stats", to=late))["groups"][0]["incidents"] == 4
    assert (await rig.client.get("/v1/stats", params={"from": datetime(2026, 1, 1).isoformat()})).status_code == 422  # noqa: DTZ001
    assert (await rig.get("/v1/stats", **{"from": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}))["groups"]


async def test_a_kind_of_promise_that_is_not_kept_is_downgraded(rig: Rig) -> None:
    stories = [CaseStory(f"K{n}") for n in range(10)]
    for story in stories:
        await rig.publish(story.opened(), story.composed(0.01), story.sent(0.02), story.reply(0.03, "2"))
    await rig.publish(*(s.remedied(0.1) for s in stories[1:]))
    await rig.at(3)
    [kind] = (await rig.get("/v1/stats"))["promise_kinds"]
    assert (kind["settled"], kind["kept"], kind["downgraded"]) == (10, 9, True)
