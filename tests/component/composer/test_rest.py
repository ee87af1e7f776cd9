"""The composer's REST: what people set holds on return and is audited; previews; keys and what they may."""

from datetime import timedelta
from typing import Any

from shared.access import key_hash
from shared.clock import VirtualClock
from shared.events.base import format_time
from shared.events.deliveries import WavePaused
from shared.events.envelope import decode, event
from shared.events.incidents import Scenario
from shared.events.stores import KeySet
from shared.events.topics import NOTICES, SETTINGS
from tests.support.composing import Composing
from tests.support.running import SEALER, read_topic
from tests.unit.composer.facts import NOW, incident

PHONE = "15500001234-5678"
STORE: dict[str, Any] = {
    "name": "小鱼家",
    "modes": {"shipping_delay": "approve"},
    "caps": {"messages": 500, "money": "2000.00"},
    "quiet_hours": None,
}
FACTS: dict[str, Any] = {
    "order_id": "T1001",
    "nickname": "小鱼",
    "lines": [{"sku": "S-1", "name": "羊绒围巾", "variant": "雾蓝", "quantity": 1, "unit_price": "129.00"}],
    "total": "129.00",
    "currency": "CNY",
}
ASKED: dict[str, Any] = {
    "store_id": "shop-1",
    "cause": "warehouse_backlog",
    "new_date": "2026-12-16T10:00:00+08:00",
    "facts": FACTS,
}


async def made_key(composer: Composing, name: str, role: str, stores: list[str] | None = None) -> dict[str, str]:
    answer = await composer.http.post("/v1/keys", json={"name": name, "role": role, "stores": stores})
    assert answer.status_code == 201, answer.text
    return composer.caller(answer.json()["key"])


async def test_a_store_holds_on_return_and_can_be_put_again(composer: Composing) -> None:
    missing = await composer.http.get("/v1/stores/shop-1")
    assert missing.status_code == 404
    assert "live" in missing.json()["detail"]
    put = await composer.http.put("/v1/stores/shop-1", json=STORE)
    assert put.status_code == 200
    got = await composer.http.get("/v1/stores/shop-1")
    assert got.json() == put.json()
    assert got.json()["modes"] == {"shipping_delay": "approve"}
    assert got.json()["quiet_hours"] is None
    assert got.json()["caps"]["money"] == "2000.00"
    again = await composer.http.put("/v1/stores/shop-1", json={**got.json(), "modes": {"shipping_delay": "live"}})
    assert again.status_code == 200
    listed = await composer.http.get("/v1/stores")
    assert [store["modes"] for store in listed.json()["items"]] == [{"shipping_delay": "live"}]
    assert listed.json()["next_cursor"] is None


async def test_the_last_word_holds_on_a_clock_that_stands_still(composer: Composing) -> None:
    for mode in ("off", "live", "shadow", "ramp", "approve"):
        put = await composer.http.put("/v1/stores/shop-1", json={"modes": {"shipping_delay": mode}})
        assert put.status_code == 200
        assert (await composer.http.get("/v1/stores/shop-1")).json()["modes"] == {"shipping_delay": mode}


async def test_a_stores_first_days_begin_as_it_begins_to_send(composer: Composing) -> None:
    async def put(mode: str, **more: Any) -> Any:
        body = {"modes": {"shipping_delay": mode}, **more}
        answer = await composer.http.put("/v1/stores/shop-1", json=body)
        assert (await composer.http.get("/v1/stores/shop-1")).json() == answer.json()
        return answer.json()["live_from"]

    now = format_time(NOW)
    assert [await put(mode) for mode in ("shadow", "approve", "ramp")] == [None, None, now]
    assert isinstance(composer.parts.clock, VirtualClock)
    composer.parts.clock.advance(timedelta(days=1))
    assert [await put(mode) for mode in ("live", "approve", "live")] == [now, now, now]
    assert await put("live", live_from="2026-12-01T00:00:00Z") == "2026-12-01T00:00:00Z"
    assert await put("live", live_from=None) == "2026-12-01T00:00:00Z"


async def test_test_phones_are_kept_as_lookups_only(composer: Composing) -> None:
    put = await composer.http.put("/v1/stores/shop-1", json={**STORE, "test_phones": [PHONE], "test_recipients": []})
    assert put.json()["test_recipients"] == [SEALER.lookup("phone", PHONE)]
    assert PHONE not in put.text
    assert PHONE not in str([record.value for record in await read_topic(composer.bus, SETTINGS)])
    assert PHONE not in str(await composer.rows("SELECT old::text, new::text FROM composer.audit"))


SLIPS: list[Any] = [
    ({"modes": {"shipping_delay": "loud"}}, "modes.shipping_delay"),
    ({"time_zone": "Mars/Olympus"}, "time_zone"),
    ({"caps": {"money": 5}}, "caps.money"),
    ({"moods": {}}, "moods"),
    ({"by": "somebody else"}, "by"),
    ({"store_id": "shop-2"}, "store_id"),
    ({"test_phones": [138]}, "test_phones"),
    ({"test_phones": "138"}, "test_phones"),
    ({"test_recipients": "x"}, "test_recipients"),
    ({"test_recipients": [5], "test_phones": []}, "test_recipients"),
]


async def test_a_store_with_a_slip_is_refused(composer: Composing) -> None:
    for body, field in SLIPS:
        answer = await composer.http.put("/v1/stores/shop-1", json=body)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert field in answer.json()["errors"][0]["field"]
        assert await read_topic(composer.bus, SETTINGS) == []


NO_OBJECTS: list[Any] = [b"", b"{", b"[]", b"\xff"]


async def test_what_is_no_object_is_refused(composer: Composing) -> None:
    for body in NO_OBJECTS:
        assert (await composer.http.put("/v1/stores/shop-1", content=body)).status_code == 400
        assert (await composer.http.post("/v1/preview", content=body)).status_code == 400


async def test_a_stop_and_its_end(composer: Composing) -> None:
    stopped = await composer.http.post("/v1/stop", json={"channel": "sms", "reason": "wrong text"})
    assert stopped.status_code == 200
    assert (stopped.json()["store_id"], stopped.json()["stopped"]) == ("*", True)
    lifted = await composer.http.post("/v1/stop", json={"channel": "sms", "stopped": False})
    assert lifted.status_code == 200
    [row] = await composer.rows("SELECT key, body->>'stopped' FROM composer.settings")
    assert tuple(row) == ("stop/*/*/sms", "false")


async def test_a_wave_is_released_once_it_is_known(composer: Composing) -> None:
    assert (await composer.http.post("/v1/waves/W-1/release", json={})).status_code == 404
    wave = WavePaused(
        wave_id="W-1", store_id="shop-1", scenario=Scenario.SHIPPING_DELAY, at=NOW, incidents=250, open_orders=900
    )
    await composer.publish(event(wave, id="W-1", source="test", time=NOW))
    other = await made_key(composer, "other", "operator", ["shop-2"])
    assert (await composer.http.post("/v1/waves/W-1/release", json={}, headers=other)).status_code == 403
    released = await composer.http.post("/v1/waves/W-1/release", json={"sends": False})
    assert released.status_code == 200
    assert (released.json()["store_id"], released.json()["sends"]) == ("shop-1", False)
    [row] = await composer.rows("SELECT body->>'sends', body->>'by' FROM composer.settings WHERE key = 'wave/W-1'")
    assert tuple(row) == ("false", "first key")


def by_what(items: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The key's, the stop's, the store's second and first entry of a list that begins with the newest."""
    second, first = (i for i in items if i["what"] == "shop-1")
    return (
        next(i for i in items if i["what"].startswith("key/")),
        next(i for i in items if i["what"].startswith("stop/")),
        second,
        first,
    )


async def test_the_audit_says_who_what_old_new(composer: Composing) -> None:
    await composer.http.put("/v1/stores/shop-1", json=STORE)
    await composer.http.put("/v1/stores/shop-1", json={**STORE, "modes": {"shipping_delay": "live"}})
    await composer.http.post("/v1/stop", json={"store_id": "shop-2"})
    secret = await made_key(composer, "desk", "operator", ["shop-1"])
    answer = await composer.http.get("/v1/audit")
    key, stop, second, first = by_what(answer.json()["items"])
    assert (first["old"], first["by"], first["type"]) == (None, "first key", "store.configured.v1")
    assert first["new"]["modes"] == {"shipping_delay": "approve"}
    assert second["old"]["modes"] == {"shipping_delay": "approve"}
    assert second["new"]["modes"] == {"shipping_delay": "live"}
    assert stop["what"] == "stop/shop-2/*/*"
    assert key["new"]["name"] == "desk"
    assert "sha256" not in answer.text
    assert secret["Authorization"].removeprefix("Bearer ") not in answer.text
    mine = await composer.http.get("/v1/audit", headers=secret)
    assert {item["store_id"] for item in mine.json()["items"]} == {"shop-1"}


async def test_the_audit_pages_newest_first(composer: Composing) -> None:
    for index in range(5):
        await composer.http.put("/v1/stores/shop-1", json={"name": f"{index}"})
    seen, cursor = [], None
    while True:
        answer = await composer.http.get("/v1/audit", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += [item["new"]["name"] for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == ["4", "3", "2", "1", "0"]
    assert (await composer.http.get("/v1/audit", params={"cursor": "§"})).status_code == 400


async def test_a_setting_that_comes_again_or_late_is_not_audited(composer: Composing) -> None:
    await composer.http.put("/v1/stores/shop-1", json=STORE)
    [record] = await read_topic(composer.bus, SETTINGS)
    said = decode(record)
    await composer.publish(said)
    older = said.data.model_copy(update={"name": "older"})
    await composer.publish(event(older, id="older", source="test", time=NOW.replace(year=2020)))
    assert len((await composer.http.get("/v1/audit")).json()["items"]) == 1
    assert (await composer.http.get("/v1/stores/shop-1")).json()["name"] == "小鱼家"


async def test_a_key_is_shown_once_works_and_ends(composer: Composing) -> None:
    reader = await made_key(composer, "reader", "read", ["shop-1"])
    assert (await composer.http.get("/v1/stores", headers=reader)).status_code == 200
    assert (await composer.http.get("/v1/stores/shop-2", headers=reader)).status_code == 403
    assert (await composer.http.put("/v1/stores/shop-1", json=STORE, headers=reader)).status_code == 403
    assert (await composer.http.post("/v1/stop", json={}, headers=reader)).status_code == 403
    assert (await composer.http.get("/v1/keys", headers=reader)).status_code == 403
    assert (await composer.http.post("/v1/keys", json={"name": "reader", "role": "read"})).status_code == 409
    listed = await composer.http.get("/v1/keys")
    assert [(k["name"], k["role"], k["revoked"]) for k in listed.json()["items"]] == [("reader", "read", False)]
    key = reader["Authorization"].removeprefix("Bearer ")
    topic = [decode(record).data for record in await read_topic(composer.bus, SETTINGS)]
    assert [data.sha256 for data in topic if isinstance(data, KeySet)] == [key_hash(key)]
    assert key not in listed.text
    revoked = await composer.http.post("/v1/keys/reader/revoke")
    assert revoked.json()["revoked"] is True
    assert (await composer.http.post("/v1/keys/nobody/revoke")).status_code == 404
    fresh = await made_key(composer, "reader", "operator", ["shop-1"])
    assert (await composer.http.post("/v1/stop", json={"store_id": "shop-1"}, headers=fresh)).status_code == 200
    assert (await composer.http.post("/v1/stop", json={}, headers=fresh)).status_code == 403


async def test_some_stores_admin_makes_no_keys(composer: Composing) -> None:
    admin = await made_key(composer, "branch", "admin", ["shop-1"])
    assert (await composer.http.put("/v1/stores/shop-1", json=STORE, headers=admin)).status_code == 200
    assert (await composer.http.put("/v1/stores/shop-2", json=STORE, headers=admin)).status_code == 403
    assert (await composer.http.post("/v1/keys", json={"name": "x", "role": "admin"}, headers=admin)).status_code == 403
    assert (await composer.http.post("/v1/keys/branch/revoke", headers=admin)).status_code == 403


ROUTES: list[Any] = [
    ("GET", "/v1/stores"),
    ("GET", "/v1/stores/shop-1"),
    ("PUT", "/v1/stores/shop-1"),
    ("POST", "/v1/stop"),
    ("POST", "/v1/waves/W-1/release"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("POST", "/v1/keys/x/revoke"),
    ("GET", "/v1/templates"),
    ("POST", "/v1/preview"),
]


async def test_nobody_gets_in_without_a_key(composer: Composing) -> None:
    for method, path in ROUTES:
        body = None if method == "GET" else {"name": "x", "role": "read", "sends": True}
        answer = await composer.http.request(method, path, json=body, headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401


async def test_templates_are_listed(composer: Composing) -> None:
    items = (await composer.http.get("/v1/templates")).json()["items"]
    assert len(items) == 14
    found = {(item["purpose"], item["language"]): item for item in items}
    assert found["first_contact", "zh-CN"] == {
        "template": "shipping_delay/first_contact",
        "scenario": "shipping_delay",
        "purpose": "first_contact",
        "language": "zh-CN",
        "version": 2,
        "channels": ["sms", "dm", "chat"],
    }
    assert found["satisfaction", "en"]["channels"] == ["dm", "chat"]


async def test_a_preview_shows_all_and_sends_nothing(composer: Composing) -> None:
    answer = await composer.http.post("/v1/preview", json=ASKED)
    assert answer.status_code == 200
    told = answer.json()
    assert told["hold"] is None
    assert told["segments"] == 2
    assert told["template"] == "shipping_delay/first_contact"
    assert "12月16日" in told["texts"]["sms"]
    assert [(o["number"], o["code"]) for o in told["options"]] == [(1, "wait"), (2, "refund")]
    assert told["reasons"] == {"compensation": "tier of 10", "important": None}
    assert await read_topic(composer.bus, NOTICES) == []
    assert await composer.rows("SELECT 1 FROM composer.incidents") == []


async def test_a_preview_says_what_would_hold_it(composer: Composing) -> None:
    dishonest = await composer.http.post("/v1/preview", json={**ASKED, "cause": "carrier_lost"})
    assert dishonest.json()["hold"]["must"] == "honest"
    late = await composer.http.post("/v1/preview", json={**ASKED, "new_date": "2026-12-01T10:00:00+08:00"})
    assert late.json()["hold"]["must"] == "date"


async def test_a_preview_of_other_purposes(composer: Composing) -> None:
    await composer.http.put("/v1/stores/shop-1", json={"name": "Fish & Co", "language": "en"})
    step = {**ASKED, "purpose": "next_step", "request": {"code": "refund", "amount": "129.00"}}
    told = (await composer.http.post("/v1/preview", json=step)).json()
    assert told["hold"] is None
    assert told["texts"]["sms"].startswith("[Fish & Co] Hello 小鱼, your refund")
    news = (await composer.http.post("/v1/preview", json={**ASKED, "purpose": "good_news", "how": "shipped"})).json()
    assert "has left our warehouse" in news["texts"]["dm"]


WRONG_PREVIEWS: list[Any] = [
    ({"purpose": "poem"}, "purpose"),
    ({"facts": {}}, "facts"),
    ({"facts": "x"}, "facts"),
    ({"new_date": "tomorrow"}, "new_date"),
    ({"how": "eaten"}, "how"),
    ({"request": {"amount": 5}}, "amount"),
]


async def test_a_preview_with_a_slip_is_refused(composer: Composing) -> None:
    for changes, field in WRONG_PREVIEWS:
        answer = await composer.http.post("/v1/preview", json={**ASKED, **changes})
        assert answer.status_code == 422
        assert field in answer.json()["errors"][0]["field"]


async def test_a_preview_of_a_scenario_without_texts(composer: Composing) -> None:
    defect = {**ASKED, "scenario": "minor_defect", "cause": "defect_at_inspection"}
    assert (await composer.http.post("/v1/preview", json=defect)).status_code == 422


async def test_notices_follow_the_store_as_it_was_put(composer: Composing) -> None:
    await composer.http.put("/v1/stores/shop-1", json={**STORE, "important": {"total": "100"}})
    await composer.publish(event(incident(), id="I-1", source="test", time=NOW))
    [notice] = await composer.notices()
    assert notice.important
    assert str(notice.texts.sms).startswith("【小鱼家】")
