"""One order each, on virtual time: what goes out, what does not, and who is asked."""

import re
from datetime import datetime, timedelta

from tests.acceptance.shop import SHANGHAI, Shop


def test_late_told_refunded_asked_and_closed(shop: Shop) -> None:
    shop.paid("T1", promise_hours=60)
    shop.advance(48)
    [incident] = shop.get("/v1/incidents", order_id="T1")["items"]
    assert (incident["scenario"], incident["state"], incident["cause"]) == ("shipping_delay", "open", "unknown")
    [first] = shop.notices("T1")
    assert (first["purpose"], first["state"]) == ("first_contact", "delivered")
    assert [option["code"] for option in first["options"]] == ["wait", "refund"]
    [sms] = shop.messages("T1", "sms")
    [dm] = shop.messages("T1", "dm")
    named = datetime.fromisoformat(incident["new_date"]).astimezone(SHANGHAI)
    assert f"{named.month}月{named.day}日" in sms["text"]
    assert f"{named.month}月{named.day}日" in dm["text"]
    assert "小鱼" in dm["text"]
    assert "http" not in sms["text"]

    shop.reply("T1", "选2")
    [asked] = shop.remedies("T1")
    assert (asked["kind"], asked["amount"]) == ("refund", "129.00")
    assert shop.went_out("T1") == ["first_contact", "next_step"]
    assert shop.case("T1")["choice"] == "refund"

    shop.completed("T1")
    assert shop.went_out("T1") == ["first_contact", "next_step", "satisfaction"]
    case = shop.case("T1")
    assert case["state"] == "closed"
    kept = {promise["kind"]: promise["state"] for promise in shop.get("/v1/promises", order_id="T1")["items"]}
    assert kept["refund"] == "kept"
    shop.reply("T1", "5")
    assert shop.case("T1")["score"] == 5
    types = [entry["type"] for entry in shop.case("T1")["timeline"]]
    story = [types.index(f"{name}.v1") for name in ("incident.opened", "notice.sent", "choice.made", "case.closed")]
    assert story == sorted(story)
    assert shop.get("/v1/stats")


def test_who_waits_gets_the_coupon_and_hears_when_it_left(shop: Shop) -> None:
    shop.late("T2")
    shop.reply("T2", "没关系，我等")
    [asked] = shop.remedies("T2")
    assert (asked["kind"], asked["amount"]) == ("wait", "10")
    assert shop.went_out("T2") == ["first_contact", "next_step"]
    shop.completed("T2")
    shop.advance(24)
    shop.until(hour=11)
    shop.shipped("T2")
    shop.advance()
    assert shop.went_out("T2") == ["first_contact", "next_step", "good_news"]
    shop.event("order.delivered.v1", order_id="T2")
    shop.advance()
    assert shop.went_out("T2")[-1] == "satisfaction"
    assert shop.case("T2")["state"] == "closed"
    assert {p["state"] for p in shop.get("/v1/promises", order_id="T2")["items"]} == {"kept"}


def test_shipped_before_anyone_was_told(shop: Shop) -> None:
    shop.stop()
    shop.late("T3")
    assert shop.messages("T3") == []
    shop.shipped("T3")
    shop.advance()
    shop.stop(False)
    shop.advance(30)
    assert shop.messages("T3") == []
    assert {n["state"] for n in shop.notices("T3")} == {"suppressed"}
    assert shop.case("T3")["state"] == "closed"


def test_shipped_after_it_was_told_is_good_news(shop: Shop) -> None:
    shop.late("T4")
    shop.advance(4)
    shop.shipped("T4")
    shop.advance()
    assert shop.went_out("T4") == ["first_contact", "good_news"]
    shop.advance(60)
    assert shop.went_out("T4") == ["first_contact", "good_news"]


def test_a_small_move_is_not_told_and_a_large_one_is(shop: Shop) -> None:
    shop.late("T5")
    shop.estimate("T5", 99)
    shop.advance()
    assert shop.went_out("T5") == ["first_contact"]
    [silent] = [n for n in shop.notices("T5") if n["state"] == "suppressed"]
    assert silent["reason"] == "small_move"
    shop.estimate("T5", 119)
    shop.advance()
    assert shop.went_out("T5") == ["first_contact", "update"]


def test_no_answer_brings_one_reminder_and_never_a_second(shop: Shop) -> None:
    shop.late("T6")
    shop.advance(23)
    assert shop.went_out("T6") == ["first_contact"]
    shop.advance(12)
    assert shop.went_out("T6") == ["first_contact", "reminder"]
    shop.advance(48)
    assert shop.went_out("T6").count("reminder") == 1


def test_a_reply_that_nobody_understands_is_a_persons_task(shop: Shop) -> None:
    shop.late("T7")
    shop.reply("T7", "你们家的客服在哪里，气死我了")
    [task] = shop.tasks("T7", "unclear_reply")
    assert task["case_id"] == shop.case("T7")["case_id"]
    assert shop.remedies("T7") == []
    shop.advance(48)
    assert "reminder" not in shop.went_out("T7")


def test_an_important_order_gets_a_call_too(shop: Shop) -> None:
    shop.late("T8", total="1999.00")
    assert shop.went_out("T8") == ["first_contact"]
    assert len(shop.tasks("T8", "call")) == 1


def test_a_provider_that_times_out_after_accepting_is_never_asked_twice(shop: Shop) -> None:
    shop.post("/v1/sandbox/behaviour", {"behaviour": "accept_then_silence", "count": 2})
    shop.late("T9")
    assert len(shop.messages("T9", "sms")) == 1
    shop.advance(6)
    assert len([m for m in shop.messages("T9", "sms") if m["purpose"] == "first_contact"]) == 1
    assert len(shop.tasks("T9", "unknown_send")) == 1
    due = datetime.fromisoformat(shop.case("T9")["contact_due_at"])
    assert datetime.fromisoformat(shop.tasks("T9", "unknown_send")[0]["created_at"]) < due


def test_a_receipt_settles_what_the_provider_did_not_answer(shop: Shop) -> None:
    shop.post("/v1/sandbox/behaviour", {"behaviour": "accept_then_timeout", "count": 2})
    shop.late("T19")
    assert [n["state"] for n in shop.notices("T19")] == ["delivered"]
    shop.advance(6)
    assert shop.tasks("T19", "unknown_send") == []
    assert len(shop.messages("T19", "sms")) == 1


def test_who_opts_out_hears_no_more(shop: Shop) -> None:
    shop.late("T10")
    [sms] = shop.messages("T10", "sms")
    shop.post("/v1/sandbox/replies", {"message_id": sms["message_id"], "text": "退订"})
    shop.advance(30)
    assert [m["purpose"] for m in shop.messages("T10", "sms")] == ["first_contact"]
    assert shop.remedies("T10") == []


def test_a_reply_by_sms_finds_its_notice(shop: Shop) -> None:
    shop.late("T11")
    [sms] = shop.messages("T11", "sms")
    shop.post("/v1/sandbox/replies", {"phone": shop.phone, "text": "②"})
    shop.advance()
    assert [r["kind"] for r in shop.remedies("T11")] == ["refund"]
    assert sms["purpose"] == "first_contact"


def test_a_promise_about_to_break_alerts_and_a_broken_one_escalates(shop: Shop) -> None:
    shop.late("T12")
    shop.reply("T12", "2")
    shop.advance(0.9)
    assert len(shop.tasks("T12", "promise_at_risk")) == 1
    shop.advance(0.2)
    assert len(shop.tasks("T12", "promise_broken")) == 1
    assert [p["state"] for p in shop.get("/v1/promises", order_id="T12")["items"] if p["kind"] == "refund"] == [
        "broken"
    ]
    shop.completed("T12")
    assert "satisfaction" not in shop.went_out("T12")


def test_a_customer_who_applied_first_gets_a_person(shop: Shop) -> None:
    shop.paid("T13")
    shop.event("order.refund_requested.v1", order_id="T13")
    shop.estimate("T13", 96)
    shop.advance()
    assert shop.messages("T13") == []
    assert len(shop.tasks("T13", "asked_first")) == 1
    [held] = shop.notices("T13")
    assert (held["state"], held["reason"]) == ("held", "asked_first")


def test_a_store_in_shadow_works_everything_out_and_sends_nothing(shop: Shop) -> None:
    shop.configure(modes={"shipping_delay": "shadow"})
    shop.late("T14")
    [notice] = shop.notices("T14")
    assert (notice["state"], notice["reason"]) == ("suppressed", "shadow")
    assert notice["texts"]["sms"]
    assert shop.messages("T14") == []
    assert shop.get("/v1/cases", order_id="T14")["items"] == []


def test_a_store_in_approve_mode_waits_for_a_person(shop: Shop) -> None:
    shop.configure(modes={"shipping_delay": "approve"})
    shop.late("T15")
    [notice] = shop.notices("T15")
    assert (notice["state"], notice["reason"]) == ("held", "approval")
    assert shop.messages("T15") == []
    assert shop.get("/v1/tasks", kind="held_notice", store_id=shop.store_id)["items"]
    shop.post(f"/v1/notices/{notice['notice_id']}/release")
    shop.advance()
    assert shop.went_out("T15") == ["first_contact"]


def test_a_rejected_notice_never_goes_out(shop: Shop) -> None:
    shop.configure(modes={"shipping_delay": "approve"})
    shop.late("T16")
    [notice] = shop.notices("T16")
    shop.post(f"/v1/notices/{notice['notice_id']}/reject", {"reason": "called them"})
    shop.advance(30)
    assert shop.messages("T16") == []


def test_a_stop_in_the_middle_of_a_wave(shop: Shop) -> None:
    for n in range(20):
        shop.paid(f"W{n}", phone=f"138000000{n:02}")
    for n in range(10):
        shop.estimate(f"W{n}", 96)
    shop.advance()
    shop.stop()
    for n in range(10, 20):
        shop.estimate(f"W{n}", 96)
    shop.advance(0.1)
    told = [n for n in range(20) if shop.messages(f"W{n}")]
    assert told == list(range(10))
    shop.stop(False)
    shop.advance(0.1)
    assert all(len(shop.messages(f"W{n}", "sms")) == 1 for n in range(20))
    audit = shop.get("/v1/audit")["items"]
    mine = [entry["new"] for entry in audit if entry["what"].startswith(f"stop/{shop.store_id}/")]
    assert [new["stopped"] for new in mine] == [False, True]


def test_a_wave_is_one_question(shop: Shop) -> None:
    shop.configure(wave={"incidents": 5, "share": 0.1})
    for n in range(12):
        shop.paid(f"V{n}", phone=f"138000001{n:02}")
    shop.advance()
    for n in range(12):
        shop.estimate(f"V{n}", 96)
    shop.advance(0.05)
    tasks = shop.get("/v1/tasks", kind="wave", store_id=shop.store_id)["items"]
    assert len(tasks) == 1
    held = [n for n in range(12) if not shop.messages(f"V{n}")]
    assert held
    notice = shop.notices(f"V{held[0]}")[0]
    assert (notice["state"], notice["reason"]) == ("held", "wave")
    [wave] = shop.get("/v1/waves", store_id=shop.store_id)["items"]
    assert (wave["state"], wave["held"], wave["scenario"]) == ("paused", len(held), "shipping_delay")
    shop.post(f"/v1/waves/{wave['wave_id']}/release", {"sends": True})
    shop.advance(0.05)
    assert all(len(shop.messages(f"V{n}", "sms")) == 1 for n in range(12))
    [wave] = shop.get("/v1/waves", store_id=shop.store_id)["items"]
    assert (wave["state"], wave["held"]) == ("released", 0)


def test_quiet_hours_wait_unless_the_two_hours_would_pass(shop: Shop) -> None:
    """At 23:00 in Shanghai: the silent channel at once, the SMS in the morning."""
    shop.configure(quiet_hours={"start": "22:00:00", "end": "08:00:00"})
    shop.until(hour=23)
    shop.late("T17")
    assert shop.messages("T17", "sms") == []
    assert len(shop.messages("T17", "dm")) == 1
    shop.advance(9)
    [sms] = shop.messages("T17", "sms")
    sent = datetime.fromisoformat(sms["at"])
    assert sent.utcoffset() == timedelta(0)
    assert sent.hour == 0


def test_phones_are_nowhere_in_the_clear(shop: Shop) -> None:
    """Logs, metrics, answers, and every table of the database."""
    phone = "13987654321"
    shop.late("T18", phone=phone)
    shop.reply("T18", f"打我电话 {phone} 退款")
    shop.post("/v1/sandbox/replies", {"phone": phone, "text": "还有 139-8765-4321"})
    shop.advance(2)
    places = {
        "log": shop.instance.log.read_text(),
        "metrics": shop.instance.http.get("/metrics").text,
        "case": shop.instance.http.get(f"/v1/cases/{shop.case('T18')['case_id']}").text,
        "notices": shop.instance.http.get("/v1/notices").text,
    }
    tables = shop.instance.query(
        "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables WHERE table_schema IN"
        " ('bus', 'detector', 'composer', 'dispatcher', 'followup')"
    )
    assert len(tables) > 20
    for row in tables:
        dumped = shop.instance.query(f"SELECT t::text AS body FROM {row['name']} AS t")
        text = "\n".join(r["body"] for r in dumped)
        places[row["name"]] = text + "\n" + _unhexed(text)
    for place, text in places.items():
        assert phone not in text, place
        assert "139-8765-4321" not in text, place


def _unhexed(text: str) -> str:
    """What bytea columns hold, as far as it is text."""
    found = re.findall(r"\\x([0-9a-f]+)", text)
    return "\n".join(bytes.fromhex(h).decode("utf-8", "replace") for h in found if len(h) % 2 == 0)
