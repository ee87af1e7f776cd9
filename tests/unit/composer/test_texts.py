"""Every template of every purpose and language: renders for full facts, passes its own checks, says what it must."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.composer.rules import checks
from services.composer.rules.people import FORBIDDEN
from services.composer.rules.steps import Known
from services.composer.rules.write import Press
from shared.events.incidents import CAUSES, How, IncidentResolved, Scenario
from shared.events.notices import OFFERING, NoticeComposed, PromiseKind, Purpose, RemedyKind
from shared.events.stores import Mode, default_store
from shared.sms import segments
from tests.unit.composer.facts import (
    CATALOGUE,
    NOW,
    PRESS,
    SHIP_AT,
    STORE,
    UNTIL,
    incident,
    line,
    order,
    request,
    written,
)

LANGUAGES = sorted(language for scenario, language in CATALOGUE.wordings if scenario is Scenario.SHIPPING_DELAY)
CAUSES_HERE = sorted(CAUSES[Scenario.SHIPPING_DELAY])
DAY = {"zh-CN": "12月16日", "en": "16 December"}
GIFT = {"zh-CN": "小礼物", "en": "gift"}


def full(purpose: Purpose, language: str, **changes: Any) -> NoticeComposed:
    facts = order(language=language, total=Decimal("1299.50"), tags=("vip",), lines=(line(), line(line_id="L2")))
    asked: dict[str, Any] = {}
    if purpose not in {Purpose.FIRST_CONTACT, Purpose.UPDATE, Purpose.GOOD_NEWS}:
        asked["request"] = request(purpose, **{"code": RemedyKind.WAIT, "amount": Decimal(20), **changes})
    kind = {"kind": IncidentResolved} if purpose is Purpose.GOOD_NEWS else {}
    return written(purpose, incident(**kind, facts=facts), **asked)


def said(notice: NoticeComposed) -> list[str]:
    return [text for text in (notice.texts.sms, notice.texts.dm, notice.texts.chat) if text is not None]


def test_both_languages_are_written() -> None:
    assert LANGUAGES == ["en", "zh-CN"]


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_template_renders_and_passes_its_checks(purpose: Purpose, language: str) -> None:
    notice = full(purpose, language)
    assert notice.hold is None
    assert notice.language == language
    assert notice.template == f"shipping_delay/{purpose}"
    assert all("{{" not in text and "{%" not in text and "  " not in text for text in said(notice))
    assert notice.texts.dm is not None
    assert notice.texts.chat is not None
    assert (notice.texts.sms is None) is (purpose is Purpose.SATISFACTION)
    assert notice.important


@pytest.mark.parametrize("cause", CAUSES_HERE)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("purpose", sorted(OFFERING))
def test_an_offer_says_the_cause_the_date_and_the_choices(purpose: Purpose, language: str, cause: str) -> None:
    notice = written(purpose, incident(cause=cause, facts=order(language=language)))
    assert notice.hold is None
    claim = CATALOGUE.wordings[Scenario.SHIPPING_DELAY, language].claim(checks.cause_of(incident(cause=cause)))
    assert claim is not None
    assert notice.texts.dm is not None
    assert notice.texts.sms is not None
    assert claim.says in notice.texts.dm
    assert claim.short in notice.texts.sms
    for text in said(notice):
        assert DAY[language] in text
    assert notice.texts.sms.startswith(("【小鱼家】", "[小鱼家] "))
    assert not set(FORBIDDEN) & set(notice.texts.sms.removeprefix("【小鱼家】"))
    assert notice.segments == segments(notice.texts.sms)
    assert notice.told_date == UNTIL
    assert notice.texts.dm == notice.texts.chat
    for option in notice.options:
        assert f"{option.number}. {option.label}" in notice.texts.dm
        assert option.promise in notice.texts.dm


def test_an_unknown_cause_says_that_it_is_being_checked() -> None:
    for cause in ("unknown", "meteor_strike"):
        notice = written(of=incident(cause=cause))
        assert notice.hold is None
        assert "核实" in str(notice.texts.dm)
        assert "核实" in str(notice.texts.sms)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_sms_takes_two_segments(language: str) -> None:
    """For usual names; in English as long as the shop and the product are written in Latin letters."""
    latin = language == "en"
    facts = order(
        language=language,
        nickname="Margaret" if latin else "爱喝咖啡的小鱼一家",
        total=Decimal(999),
        lines=(line(name="Cashmere scarf" if latin else "加厚保暖羊绒围巾披肩女冬季新款"),),
    )
    store = default_store("shop-1", name="Fish & Co" if latin else "小鱼家旗舰店服饰")
    for purpose in Purpose:
        for cause in CAUSES_HERE:
            for chosen in (RemedyKind.WAIT, RemedyKind.REFUND):
                kind = {"kind": IncidentResolved} if purpose is Purpose.GOOD_NEWS else {}
                asked = request(purpose, code=chosen, amount=Decimal(20), gift=True)
                found = incident(**kind, facts=facts, cause=cause)
                assert written(purpose, found, store=store, request=asked).segments <= 2, (purpose, cause)


def test_an_offer_in_figures() -> None:
    notice = written()
    wait, refund = notice.options
    assert (wait.number, wait.code, wait.amount, wait.gift) == (1, RemedyKind.WAIT, Decimal(10), False)
    assert [(p.kind, p.due_at, p.within_seconds, p.amount) for p in wait.promises] == [
        (PromiseKind.SHIP_BY, UNTIL, None, None),
        (PromiseKind.COUPON, None, 86400, Decimal(10)),
    ]
    assert (refund.number, refund.code, refund.amount) == (2, RemedyKind.REFUND, Decimal(129))
    assert [(p.kind, p.within_seconds, p.amount) for p in refund.promises] == [(PromiseKind.REFUND, 3600, Decimal(129))]
    assert [(p.kind, p.due_at) for p in notice.promises] == [(PromiseKind.SHIP_BY, UNTIL)]
    assert notice.money_reserved == Decimal(10)
    assert notice.contact_due_at == NOW + timedelta(hours=2)
    assert "【小鱼家】小鱼您好" in str(notice.texts.sms)
    assert "10元" in str(notice.texts.sms)
    assert "1001" in str(notice.texts.sms)
    assert "202612121001" not in str(notice.texts.sms)
    assert "202612121001" in str(notice.texts.dm)
    assert "雾蓝" in str(notice.texts.dm)
    assert "不回复的话，我们就为您保留订单，最晚12月16日发出" in str(notice.texts.dm)


def test_part_of_an_order_is_refunded_without_a_sum_that_we_do_not_know() -> None:
    facts = order(
        lines=(line(), line(line_id="L2", name="手套")), affected=({"sku": "S1", "quantity": 1, "line_id": "L2"},)
    )
    notice = written(of=incident(facts=facts))
    assert notice.options[1].amount is None
    assert "129" not in str(notice.texts.dm)
    assert "手套" in str(notice.texts.dm)
    assert "围巾" not in str(notice.texts.dm)


@pytest.mark.parametrize(("language", "rest"), [("zh-CN", "剩余货款99.50元的退款"), ("en", "the remaining 99.50 yuan")])
def test_a_refund_is_of_what_did_not_go_back_before(language: str, rest: str) -> None:
    notice = written(of=incident(facts=order(refunded=Decimal("29.5"), language=language)))
    assert notice.hold is None
    refund = notice.options[1]
    assert refund.amount == Decimal("99.5")
    assert [promise.amount for promise in refund.promises] == [Decimal("99.5")]
    assert rest in refund.promise
    assert "129" not in str(notice.texts.dm)
    assert notice.options[0].amount == 10  # by the order's total, whatever went back


@pytest.mark.parametrize(("language", "again"), [("zh-CN", "送您"), ("en", "we give you")])
def test_an_update_to_who_waits_promises_no_second_coupon(language: str, again: str) -> None:
    facts = order(total=Decimal(999), language=language)
    known = Known(told=True, chosen=RemedyKind.WAIT, offered=Decimal(20))
    notice = written(Purpose.UPDATE, incident(facts=facts), known=known)
    assert notice.hold is None
    to_others = written(Purpose.UPDATE, incident(facts=facts))
    assert notice.segments <= to_others.segments
    assert again in str(to_others.texts.dm)
    assert again not in str(notice.texts.dm)
    assert notice.options[0].amount == 20


def test_an_assumed_promise_is_never_quoted() -> None:
    assert "12月14日" in str(written().texts.dm)
    assert "12月14日" not in str(written(of=incident(promise_assumed=True)).texts)


def test_the_date_is_the_stores_own() -> None:
    """03:00 on the 17th in Shanghai is still the 16th in London."""
    late = incident(new_date=SHIP_AT.replace(hour=19))
    assert "12月17日" in str(written(of=late).texts.dm)
    london = default_store("shop-1", name="小鱼家", time_zone="Europe/London")
    notice = written(of=late, store=london)
    assert "12月16日" in str(notice.texts.dm)
    assert notice.told_date == SHIP_AT.replace(hour=23, minute=59, second=59)
    again = written(of=incident(new_date=notice.told_date), store=london)
    assert again.told_date == notice.told_date


def test_the_next_step_of_a_refund() -> None:
    asked = request(
        Purpose.NEXT_STEP, code=RemedyKind.REFUND, amount=Decimal("129.00"), due_at=NOW + timedelta(hours=1)
    )
    notice = written(Purpose.NEXT_STEP, request=asked)
    assert notice.hold is None
    assert (notice.options, notice.promises, notice.told_date) == ((), (), None)
    assert notice.request_id == "Q-1"
    for text in said(notice):
        assert "12月13日 10:00" in text
        assert "129元" in text


def test_a_next_step_of_nothing_is_held() -> None:
    hold = written(Purpose.NEXT_STEP, request=request(Purpose.NEXT_STEP)).hold
    assert hold is not None
    assert hold.must == "options"


def test_the_next_step_of_waiting() -> None:
    asked = request(Purpose.NEXT_STEP, code=RemedyKind.WAIT, amount=Decimal(20), gift=True, due_at=UNTIL)
    notice = written(Purpose.NEXT_STEP, request=asked)
    assert notice.hold is None
    assert notice.told_date == UNTIL
    for text in said(notice):
        assert "12月16日" in text
        assert "20元" in text
    assert "小礼物" in str(notice.texts.dm)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reminder_offers_what_was_offered_before(language: str) -> None:
    """Whatever its request carries: that describes a choice, which a reminder has none of."""
    facts = order(total=Decimal(999), language=language)
    first = written(of=incident(facts=facts))
    for asked in (request(Purpose.REMINDER), request(Purpose.REMINDER, amount=Decimal(3), gift=False)):
        reminder = written(Purpose.REMINDER, incident(facts=facts), request=asked)
        assert [o.promise for o in reminder.options] == [o.promise for o in first.options]
        assert [p.text for o in reminder.options for p in o.promises] == [
            p.text for o in first.options for p in o.promises
        ]
        for text in said(reminder):
            assert GIFT[language] in text
            assert "20" in text


def test_a_next_step_promises_nothing_that_was_not_chosen() -> None:
    facts = order(total=Decimal(999))
    asked = request(Purpose.NEXT_STEP, code=RemedyKind.WAIT, due_at=UNTIL)
    for text in said(written(Purpose.NEXT_STEP, incident(facts=facts), request=asked)):
        assert "礼物" not in text
        assert "券" not in text


@pytest.mark.parametrize(
    ("how", "word"),
    [
        (How.SHIPPED, "已经从仓库发出"),
        (How.DELIVERED, "已经送达"),
        (How.PACKED, "打包好"),
        (How.BACK_IN_TIME, "按约定的时间发出"),
        (How.PROMISE_MOVED, "按和您重新约好的时间发出"),
    ],
)
def test_good_news_says_how_it_ended(how: How, word: str) -> None:
    notice = written(Purpose.GOOD_NEWS, incident(IncidentResolved, how=how))
    assert notice.hold is None
    assert word in str(notice.texts.dm)
    assert ("好消息" in str(notice.texts.sms)) is (how is not How.PROMISE_MOVED)
    waits = written(Purpose.GOOD_NEWS, incident(IncidentResolved, how=how), known=Known(chosen=RemedyKind.WAIT))
    assert "答应您的补偿照旧" in str(waits.texts.dm)


def test_a_satisfaction_question_asks_for_a_digit_in_chat_only() -> None:
    notice = written(Purpose.SATISFACTION, request=request(Purpose.SATISFACTION), known=Known(chosen=RemedyKind.REFUND))
    assert notice.texts.sms is None
    assert notice.segments == 0
    assert "1 是很不满意，5 是很满意" in str(notice.texts.chat)
    assert "退款已经办好" in str(notice.texts.chat)


def test_numbers_continue_where_they_are_told_to() -> None:
    notice = written(first_number=3)
    assert [option.number for option in notice.options] == [3, 4]
    assert "回3继续等" in str(notice.texts.sms)
    assert "4. 退款" in str(notice.texts.dm)


def test_no_digit_left_is_a_persons() -> None:
    hold = written(first_number=None).hold
    assert hold is not None
    assert hold.must == "options"


def test_money_is_reserved_once() -> None:
    known = Known(told=True, offered=Decimal(10))
    assert written(mode=Mode.SHADOW).money_reserved == 0
    assert written(Purpose.UPDATE, known=known).money_reserved == 0
    assert written(Purpose.REMINDER, known=known, request=request(Purpose.REMINDER)).money_reserved == 0
    assert written(known=Known(offered=Decimal(10))).money_reserved == 10


def test_never_less_than_was_offered_before() -> None:
    notice = written(Purpose.UPDATE, known=Known(told=True, offered=Decimal(25)))
    assert notice.options[0].amount == 25
    assert "25元" in str(notice.texts.sms)


def test_ids_follow_from_the_cause() -> None:
    assert written().notice_id == written().notice_id
    others = [
        written(Purpose.UPDATE),
        written(of=incident(revision=2)),
        written(request=request(Purpose.FIRST_CONTACT)),
    ]
    assert len({written().notice_id, *(notice.notice_id for notice in others)}) == 4


def test_the_language_is_the_customers_then_the_stores_then_chinese() -> None:
    english = default_store("shop-1", language="en-GB")
    assert written(store=english).language == "en"
    assert written(store=english, of=incident(facts=order(language="zh-TW"))).language == "zh-CN"
    assert written(store=default_store("shop-1", language="fr")).language == "zh-CN"


def test_a_store_without_a_name_signs_with_its_id() -> None:
    assert str(written(store=default_store("shop-1")).texts.sms).startswith("【shop-1】")


CODE = st.sampled_from(
    ["{{ store }}", "{% for i in (1..9999999) %}x{% endfor %}", "{{", "%}", "{% include 'x' %}", "{{ 7 | times: 6 }}"]
)


@given(code=CODE, around=st.text(alphabet="小鱼ab 1", max_size=6))
def test_what_others_wrote_stays_text(code: str, around: str) -> None:
    wrote = f"{around}{code}{around}"
    facts = order(nickname=code, lines=(line(name=wrote, variant=wrote),), order_id=f"T{code}")
    notice = written(of=incident(facts=facts), store=replace_name(code))
    assert notice.texts.dm is not None
    assert " ".join(code.split()) in notice.texts.dm
    assert "42" not in notice.texts.dm
    assert "xx" not in notice.texts.dm
    assert f"T{' '.join(code.split())}" in notice.texts.dm


def replace_name(name: str) -> Any:
    return STORE.model_copy(update={"name": name})


def wording(**texts: str) -> Press:
    """The press, with other words in the texts of a first contact."""
    key = (Scenario.SHIPPING_DELAY, "zh-CN")
    known = CATALOGUE.wordings[key]
    first = known.texts[Purpose.FIRST_CONTACT].model_copy(update=texts)
    changed = known.model_copy(update={"texts": {**known.texts, Purpose.FIRST_CONTACT: first}})
    return replace(PRESS, catalogue=replace(CATALOGUE, wordings={**CATALOGUE.wordings, key: changed}))


DM = str(CATALOGUE.wordings[Scenario.SHIPPING_DELAY, "zh-CN"].texts[Purpose.FIRST_CONTACT].dm)
SMS = str(CATALOGUE.wordings[Scenario.SHIPPING_DELAY, "zh-CN"].texts[Purpose.FIRST_CONTACT].sms)


@pytest.mark.parametrize(
    ("must", "texts"),
    [
        ("honest", {"dm": DM + "快递爆仓了"}),
        ("honest", {"dm": DM + "我们打包时出了差错，需要重新打包"}),
        ("honest", {"sms": SMS + "供应商到货晚"}),
        ("options", {"dm": "{{ greeting }}，{{ cause }}，{{ date }}"}),
        ("options", {"sms": "{{ greeting }}，{{ date }}，回1继续等"}),
        ("date", {"dm": DM.replace("{{ date }}", "").replace("o.promise", "o.short")}),
        ("date", {"sms": SMS + "过几天就好"}),
        ("text", {"dm": DM + "{{ nothing }}"}),
        ("text", {"dm": DM + "{% if %}"}),
        ("text", {"dm": DM + "{% for i in (1..2000) %}{% endfor %}"}),
        ("text", {"sms": SMS + "【小鱼家】"}),
        ("text", {"sms": SMS + "详见 www.example.com"}),
        ("text", {"sms": SMS + "或打13812345678"}),
        ("text", {"sms": SMS + "★"}),
        ("text", {"sms": SMS + "好" * 420}),
    ],
)
def test_a_broken_must_holds_it(must: str, texts: dict[str, str]) -> None:
    hold = written(press=wording(**texts)).hold
    assert hold is not None
    assert hold.must == must
    assert "小鱼" not in hold.reason


@pytest.mark.parametrize(
    ("must", "changes"),
    [
        ("honest", {"cause": "carrier_stuck_at_hub"}),
        ("honest", {"evidence": ()}),
        ("date", {"new_date": None}),
        ("date", {"new_date": NOW - timedelta(days=1)}),
    ],
)
def test_facts_that_no_honest_message_can_be_made_of(must: str, changes: dict[str, Any]) -> None:
    hold = written(of=incident(**changes)).hold
    assert hold is not None
    assert hold.must == must


def test_a_product_may_be_called_anything() -> None:
    facts = order(lines=(line(name="快递袋 50个", variant="顺丰款"),), nickname="小快递")
    assert written(of=incident(facts=facts)).hold is None


def test_options_that_lack_a_refund_or_are_too_few() -> None:
    wait, refund = written().options
    texts = written().texts
    assert checks.options((wait, refund), texts) == []
    for offered in ((wait,), (refund,), (wait, wait.model_copy(update={"number": 2})), ()):
        broken = checks.options(offered, texts)
        assert broken
        assert {b.must for b in broken} == {"options"}
