"""Tiers, greetings, segments, digits, steps: tables."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from shutil import copytree
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.composer import catalogue
from services.composer.rules.people import product, short_product, spoken_name, tail
from services.composer.rules.remedies import compensation, important
from services.composer.rules.steps import Known, after_incident, count_on, first_digit
from shared.errors import Halt
from shared.events.incidents import How, IncidentResolved, IncidentUpdated, Scenario
from shared.events.notices import Purpose, RemedyKind
from shared.events.stores import Important
from shared.sms import segments
from tests.unit.composer.facts import CATALOGUE, NOW, UNTIL, incident, line, order

SHANGHAI = ZoneInfo("Asia/Shanghai")
LONG_AGO = UNTIL - timedelta(days=2)
POLICY = CATALOGUE.policies[Scenario.SHIPPING_DELAY]


@pytest.mark.parametrize(
    ("total", "tags", "coupon", "gift"),
    [
        ("0.01", (), 5, False),
        ("99.99", (), 5, False),
        ("100", (), 10, False),
        ("300", (), 10, False),
        ("300.01", (), 20, True),
        ("1000", (), 20, True),
        ("1000.01", (), 50, True),
        ("99.99", ("hot",), 8, False),
        ("300", ("limited", "hot"), 15, False),
        ("5000", ("limited",), 75, True),
        ("99.99", ("vip",), 5, False),
    ],
)
def test_tiers(total: str, tags: tuple[str, ...], coupon: int, gift: bool) -> None:
    found = compensation(order(total=Decimal(total), tags=tags), POLICY)
    assert (found.coupon, found.gift) == (Decimal(coupon), gift)
    assert found.reason


def test_no_tiers_no_coupon() -> None:
    assert compensation(order(currency="JPY"), POLICY).coupon == 0


@pytest.mark.parametrize(
    ("total", "tags", "is_important"),
    [("999.99", (), False), ("1000", (), True), ("5", ("vip",), True), ("5", ("x",), False)],
)
def test_important(total: str, tags: tuple[str, ...], is_important: bool) -> None:
    assert (important(order(total=Decimal(total), tags=tags), Important()) is not None) is is_important


@pytest.mark.parametrize(
    ("nickname", "name"),
    [
        ("小鱼", "小鱼"),
        ("小鱼🐟", "小鱼🐟"),
        (" Anna  Lee ", "Anna Lee"),
        ("海边的Kafka", "海边的Kafka"),
        ("\u202e小鱼\u0007", "小鱼"),
        ("", None),
        ("   ", None),
        ("小**鱼", None),
        ("t***5", None),
        ("tb12345678", None),
        ("jd_4f8a9c2b", None),
        ("用户8273645", None),
        ("匿名用户", None),
        ("13812345678", None),
        ("user20231101", None),
        ("wxid_a8f9k2", None),
        ("一二三四五六七八九十十一二", None),
        ("傻 逼 店", None),
        ("FUCK-you", None),
        ("骗子商家", None),
        ("官方客服", None),
        ("来www.a.com", None),
        ("★★★", None),
        ("aaaaaaa", None),
    ],
)
def test_whom_a_greeting_names(nickname: str, name: str | None) -> None:
    assert spoken_name(nickname, CATALOGUE.names) == name


@given(st.text(max_size=40))
def test_no_nickname_breaks_a_greeting(nickname: str) -> None:
    name = spoken_name(nickname, CATALOGUE.names)
    assert name is None or (0 < len(name) <= CATALOGUE.names.longest and name.isprintable())


@pytest.mark.parametrize(
    ("changes", "long", "short"),
    [
        ({"name": "羊绒围巾"}, "羊绒围巾", "羊绒围巾"),
        (
            {"name": "【双12】加厚保暖羊绒围巾披肩女冬季新款"},
            "加厚保暖羊绒围巾披肩女冬季新款",
            "加厚保暖羊绒围巾披肩女冬",
        ),
        ({"name": "加厚保暖羊绒围巾披肩", "short_name": "羊绒围巾"}, "加厚保暖羊绒围巾披肩", "羊绒围巾"),
        ({"name": "Cashmere scarf, misty blue"}, "Cashmere scarf, misty blue", "Cashmere"),
        ({"name": "★特价★ 围巾"}, "特价 围巾", "特价 围巾"),
        ({"name": "【赠品】"}, "赠品", "赠品"),
    ],
)
def test_how_a_product_is_named(changes: dict[str, Any], long: str, short: str) -> None:
    assert product(line(**changes)) == long
    assert short_product(line(**changes)) == short


def test_the_end_of_an_order_number() -> None:
    assert (tail("202612121001"), tail("T1")) == ("1001", "T1")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("[" * 80, 1),
        ("[" * 81, 2),
        ("a" * 152 + "[" + "a" * 10, 2),
        ("[" * 153, 3),
        ("好" * 70, 1),
        ("好" * 71, 2),
        ("好" * 134, 2),
        ("好" * 135, 3),
        ("🐟" * 35, 1),
        ("🐟" * 36, 2),
        ("🐟" * 66, 2),
        ("🐟" * 67, 3),
        ("a" * 70 + "’", 2),
        ("€" * 80, 1),
    ],
)
def test_segments(text: str, count: int) -> None:
    assert segments(text) == count


@given(st.text(alphabet="a[好🐟", max_size=400))
def test_more_text_never_takes_fewer_segments(text: str) -> None:
    assert segments(text) <= segments(text + "好") <= segments(text + "好") + 1


@pytest.mark.parametrize(
    ("used", "first"),
    [
        ([{}], 1),
        ([{1: "other", 2: "other"}], 3),
        ([{1: "me", 2: "me"}], 1),
        ([{1: "other", 2: "other", 3: "me", 4: "me"}], 3),
        ([{1: "other", 2: "other"}, {5: "third", 6: "third"}], 7),
        ([{1: "me", 2: "me"}, {1: "other", 2: "other"}], 3),
        ([{98: "other", 99: "other"}], 1),
        ([dict.fromkeys(range(1, 100), "other")], None),
        ([dict.fromkeys(range(1, 100, 2), "other")], None),
    ],
)
def test_digits(used: list[dict[int, str]], first: int | None) -> None:
    assert first_digit("me", used, 2) == first


@pytest.mark.parametrize(
    ("known", "purpose"),
    [
        (Known(), Purpose.FIRST_CONTACT),
        (Known(told=True), Purpose.UPDATE),
        (Known(told=True, chosen=RemedyKind.WAIT), None),
        (Known(told=True, chosen=RemedyKind.REFUND, counts_on=(NOW, LONG_AGO)), None),
        (Known(told=True, chosen=RemedyKind.WAIT, counts_on=(NOW, LONG_AGO)), Purpose.UPDATE),
    ],
)
def test_what_an_open_incident_calls_for(known: Known, purpose: Purpose | None) -> None:
    step = after_incident(known, incident(IncidentUpdated, revision=2), SHANGHAI)
    assert step.purpose is purpose
    assert step.reason


@pytest.mark.parametrize(
    ("new_date", "purpose"),
    [
        (UNTIL - timedelta(hours=20), None),  # the same day, told as a day
        (UNTIL, None),
        (UNTIL + timedelta(hours=1), Purpose.UPDATE),  # the next day
        (UNTIL - timedelta(hours=25), Purpose.UPDATE),
        (None, None),
    ],
)
def test_who_waits_hears_of_another_date(new_date: datetime | None, purpose: Purpose | None) -> None:
    known = Known(told=True, chosen=RemedyKind.WAIT, counts_on=(NOW, UNTIL))
    step = after_incident(known, incident(IncidentUpdated, revision=2, new_date=new_date), SHANGHAI)
    assert step.purpose is purpose
    assert step.reason


def test_a_customer_counts_on_the_date_that_was_told_last() -> None:
    told = [(NOW, UNTIL), (NOW + timedelta(hours=5), UNTIL + timedelta(days=2)), (NOW + timedelta(hours=1), None)]
    for order_of in permutations(told):
        known = Known()
        for at, date in order_of:
            count_on(known, at, date)
        assert known.counts_on == told[1]


@pytest.mark.parametrize(
    ("how", "chosen", "purpose"),
    [
        (How.SHIPPED, None, Purpose.GOOD_NEWS),
        (How.BACK_IN_TIME, None, Purpose.GOOD_NEWS),
        (How.PROMISE_MOVED, None, Purpose.GOOD_NEWS),
        (How.PACKED, None, Purpose.GOOD_NEWS),
        (How.DELIVERED, RemedyKind.WAIT, Purpose.GOOD_NEWS),
        (How.SHIPPED, RemedyKind.REFUND, None),
        (How.CANCELLED, None, None),
        (How.REFUNDED, RemedyKind.REFUND, None),
    ],
)
def test_what_an_end_calls_for(how: How, chosen: RemedyKind | None, purpose: Purpose | None) -> None:
    step = after_incident(Known(chosen=chosen), incident(IncidentResolved, how=how), SHANGHAI)
    assert step.purpose is purpose
    assert step.reason


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (
            "shipping_delay/policy.toml",
            '{ coupon = "50", gift = true }',
            '{ to = "9", coupon = "50" }',
            "the last tier",
        ),
        ("shipping_delay/policy.toml", "factor", "faktor", "faktor"),
        ("shipping_delay/policy.toml", "refund = { within_seconds = 3600 }", "", "due lacks refund"),
        (
            "shipping_delay/en.toml",
            'allowed_by = ["unknown"]',
            'allowed_by = ["packing_error"]',
            "causes lacks unknown",
        ),
        ("shipping_delay/en.toml", 'allowed_by = ["unknown"]', 'allowed_by = ["unknown", "sold_out"]', "sold_out"),
        ("shipping_delay/en.toml", "[texts.reminder]", "[texts.correction_]", "texts"),
        ("names.toml", "longest", "= longest", "cannot be read"),
    ],
)
def test_a_catalogue_with_a_slip_is_refused(tmp_path: Path, path: str, old: str, new: str, told: str) -> None:
    copied = tmp_path / "catalogue"
    copytree(catalogue.HERE, copied)
    text = (copied / path).read_text()
    assert old in text
    (copied / path).write_text(text.replace(old, new))
    with pytest.raises(Halt, match=told):
        catalogue.load(copied)


def test_another_language_is_only_files(tmp_path: Path) -> None:
    copied = tmp_path / "catalogue"
    copytree(catalogue.HERE, copied)
    for folder in ("languages", "shipping_delay"):
        (copied / folder / "ja.toml").write_text((copied / folder / "en.toml").read_text())
    assert catalogue.load(copied).language(Scenario.SHIPPING_DELAY, "ja-JP") == "ja"
