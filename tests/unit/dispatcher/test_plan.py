"""Steps, candidates, quiet hours, addresses."""

from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any

import pytest

from services.dispatcher.channels.assisted import FEATURES as ASSISTED
from services.dispatcher.channels.port import Features, ReplyRoute
from services.dispatcher.channels.sandbox import DM, FEATURES, SMS
from services.dispatcher.rules import plan
from services.dispatcher.rules.address import Address, address, international, split_extension
from services.dispatcher.rules.plan import Go, Later, Nobody, Ways
from services.dispatcher.rules.state import IncidentState, Step
from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.events.deliveries import Reason
from shared.events.notices import Purpose, Texts
from shared.events.stores import QuietHours, default_store
from tests.component.dispatcher.rig import NOON, contact, hours
from tests.unit.dispatcher.cases import CHAT, PHONE, WAYS, notice

GATEWAY = Features(
    kinds=(Kind.SMS,),
    address=RecipientKind.PHONE,
    pictures=False,
    receipts=True,
    inbound=True,
    reply_route=ReplyRoute.PHONE,
    longest=500,
)
BRIDGE = replace(FEATURES[DM], address=RecipientKind.CHAT_ID)


def names(kinds: tuple[Kind, ...], ways: Ways, addresses: tuple[Address, ...], **fields: Any) -> list[str]:
    found, _ = plan.candidates(kinds, notice(**fields).data, addresses, ways, NOON)
    return [c.key for c in found]


def test_offers_go_by_sms_and_chat_together_and_the_rest_by_what_reached_them() -> None:
    reached = IncidentState(reached=[Kind.CHAT])
    assert plan.steps_of(notice().data, reached) == ((Kind.SMS,), (Kind.DM, Kind.CHAT))
    assert plan.steps_of(notice(Purpose.REMINDER).data, reached) == ((Kind.SMS,), (Kind.DM, Kind.CHAT))
    assert plan.steps_of(notice(Purpose.NEXT_STEP).data, reached) == ((Kind.CHAT, Kind.SMS, Kind.DM),)
    both = IncidentState(reached=[Kind.DM, Kind.SMS])
    assert plan.steps_of(notice(Purpose.NEXT_STEP).data, both) == ((Kind.SMS, Kind.DM, Kind.CHAT),)
    assert plan.steps_of(notice(Purpose.SATISFACTION).data, IncidentState())[0][0] is Kind.DM


def test_candidates_follow_features_texts_and_contacts() -> None:
    ways = Ways({"kannel": GATEWAY, "bridge": BRIDGE})
    assert names((Kind.SMS,), ways, (PHONE, CHAT)) == [f"kannel/sms/{PHONE.recipient}"]
    assert names((Kind.DM, Kind.CHAT), ways, (PHONE, CHAT)) == [f"bridge/dm/{CHAT.recipient}"]
    assert names((Kind.DM,), ways, (PHONE,)) == []
    assert names((Kind.SMS,), ways, (PHONE,), texts=Texts(dm="x")) == []
    assert names((Kind.SMS,), ways, (PHONE,), texts=Texts(sms="x" * 501)) == []


def test_digits_only_where_an_answer_finds_back_unless_a_person_sends() -> None:
    deaf = Ways({"deaf": replace(BRIDGE, reply_route=ReplyRoute.NONE), "assisted": ASSISTED})
    assert names((Kind.DM,), deaf, (CHAT,)) == [f"assisted/dm/{CHAT.recipient}"]
    assert len(names((Kind.DM,), deaf, (CHAT,), purpose=Purpose.NEXT_STEP)) == 2


def test_a_satisfaction_question_by_sms_only_where_that_may_carry_it() -> None:
    strict = Ways({"sms": replace(GATEWAY, promotional=False)})
    assert names((Kind.SMS,), strict, (PHONE,), purpose=Purpose.SATISFACTION) == []
    assert len(names((Kind.SMS,), Ways({"sms": GATEWAY}), (PHONE,), purpose=Purpose.SATISFACTION)) == 1


def test_expired_and_bad_contacts_are_left_out_with_the_reason() -> None:
    ways = Ways({"kannel": GATEWAY})
    expired = replace(PHONE, expires_at=NOON)
    assert plan.candidates((Kind.SMS,), notice().data, (expired,), ways, NOON) == ([], Reason.BAD_ADDRESS)
    abroad = replace(PHONE, to="", problem=Reason.COUNTRY)
    assert plan.candidates((Kind.SMS,), notice().data, (abroad,), ways, NOON) == ([], Reason.COUNTRY)
    assert plan.candidates((Kind.DM,), notice().data, (PHONE,), ways, NOON) == ([], Reason.NO_CHANNEL)


def test_the_sandbox_reaches_who_has_no_contact_at_all() -> None:
    assert names((Kind.SMS,), WAYS, ()) == ["sandbox-sms/sms/customer:shop-1:c-7"]


def choose(step: Step, ways: Ways, quiet: datetime | None = None, both: bool = False) -> plan.Choice:
    found, problem = plan.candidates((Kind.SMS,), notice().data, (PHONE,), ways, NOON)
    return plan.choose(step, found, problem, ways, NOON, quiet=quiet, quiet_ways_too=both)


def test_a_step_goes_to_the_first_that_is_usable_now() -> None:
    two = {"a": GATEWAY, "b": GATEWAY}
    go = choose(Step(), Ways(two))
    assert isinstance(go, Go)
    assert go.candidate.provider == "a"
    go = choose(Step(), Ways(two, paused={"a": NOON + hours(1)}))
    assert isinstance(go, Go)
    assert go.candidate.provider == "b"
    later = choose(Step(), Ways(two, paused={"a": NOON + hours(1), "b": NOON + hours(2)}))
    assert isinstance(later, Later)
    assert later.until == NOON + hours(1)
    stopped = choose(Step(), Ways({"a": GATEWAY}, stopped={("a", Kind.SMS)}))
    assert isinstance(stopped, Later)
    assert (stopped.until, stopped.reason) == (None, Reason.STOPPED)
    full = choose(Step(), Ways({"a": GATEWAY}, full={"a"}))
    assert isinstance(full, Later)
    assert full.full
    again = choose(Step(retry_at=NOON + hours(0.1)), Ways(two))
    assert isinstance(again, Later)


def test_a_step_never_returns_to_what_is_through_nor_to_who_may_have_it() -> None:
    two = Ways({"a": GATEWAY, "b": GATEWAY})
    go = choose(Step(tried=[f"a/sms/{PHONE.recipient}"]), two)
    assert isinstance(go, Go)
    assert go.candidate.provider == "b"
    assert isinstance(choose(Step(accepted=[PHONE.recipient]), two), Nobody)


@pytest.mark.parametrize(
    ("local", "until"),
    [
        ("21:59", None),
        ("22:00", "08:00+1"),
        ("23:30", "08:00+1"),
        ("00:00", "08:00"),
        ("07:59", "08:00"),
        ("08:00", None),
    ],
)
def test_quiet_hours_over_midnight(local: str, until: str | None) -> None:
    from zoneinfo import ZoneInfo

    shanghai = ZoneInfo("Asia/Shanghai")
    clock = time.fromisoformat(local)
    now = datetime(2026, 12, 12, clock.hour, clock.minute, tzinfo=shanghai).astimezone(UTC)
    found = plan.quiet_for(default_store("s"), Purpose.FIRST_CONTACT, now)
    if until is None:
        assert found is None
    else:
        assert found == datetime(2026, 12, 13 if until.endswith("+1") else 12, 8, 0, tzinfo=shanghai)


def test_quiet_hours_within_a_day_and_none() -> None:
    store = default_store("s", quiet_hours=QuietHours(start=time(12), end=time(14)), time_zone="UTC")
    noon = datetime(2026, 12, 12, 12, 30, tzinfo=UTC)
    assert plan.quiet_for(store, Purpose.REMINDER, noon) == datetime(2026, 12, 12, 14, tzinfo=UTC)
    assert plan.quiet_for(store, Purpose.NEXT_STEP, noon) is None
    assert plan.quiet_for(default_store("s", quiet_hours=None), Purpose.REMINDER, noon) is None


def test_both_wait_together_where_the_limit_allows_or_nothing_is_urgent() -> None:
    assert plan.all_wait(notice().data, NOON + hours(1))
    assert not plan.all_wait(notice().data, NOON + hours(3))
    assert not plan.all_wait(notice(contact_due_at=None).data, NOON + hours(1))
    for purpose in (Purpose.UPDATE, Purpose.REMINDER, Purpose.GOOD_NEWS, Purpose.SATISFACTION):
        assert plan.all_wait(notice(purpose, contact_due_at=None).data, NOON + hours(9))
    assert not plan.all_wait(notice(Purpose.CORRECTION).data, NOON + hours(9))
    assert not plan.all_wait(notice(Purpose.REMINDER, contact_due_at=None).data, None)
    rings = choose(Step(), Ways({"a": GATEWAY}), quiet=NOON + hours(1))
    assert isinstance(rings, Later)
    silent = Ways({"a": replace(GATEWAY, quiet=True)})
    assert isinstance(choose(Step(), silent, quiet=NOON + hours(1)), Go)
    assert isinstance(choose(Step(), silent, quiet=NOON + hours(1), both=True), Later)


@pytest.mark.parametrize(
    ("value", "number", "extension"),
    [
        ("15500001234-5678", "15500001234", "5678"),
        ("15500001234转567", "15500001234", "567"),
        ("155 0000 1234 转 5678", "15500001234", "5678"),
        ("+8615500001234-5678", "+8615500001234", "5678"),
        ("13812345678", "13812345678", ""),
        ("138-1234-5678", "138-1234-5678", ""),
        ("021-58881234", "021-58881234", ""),
    ],
)
def test_extensions_are_split_off_first(value: str, number: str, extension: str) -> None:
    assert split_extension(value) == (number, extension)


@pytest.mark.parametrize(
    ("value", "countries", "to", "problem"),
    [
        ("13812345678", ("CN",), "+8613812345678", None),
        ("138-1234-5678", ("CN",), "+8613812345678", None),
        ("008613812345678", ("CN",), "+8613812345678", None),
        ("15500001234-5678", ("CN",), "+8615500001234", None),
        ("+14155550100", ("CN",), "", Reason.COUNTRY),
        ("+88213300000", ("CN",), "", Reason.COUNTRY),
        ("+14155550100", ("CN", "US"), "+14155550100", None),
        ("12", ("CN",), "", Reason.BAD_ADDRESS),
        ("call me", ("CN",), "", Reason.BAD_ADDRESS),
        ("", ("CN",), "", Reason.BAD_ADDRESS),
    ],
)
def test_numbers_in_the_stores_countries_only(
    value: str, countries: tuple[str, ...], to: str, problem: Reason | None
) -> None:
    assert international(value, countries) == (to, problem)


def test_the_shared_base_of_a_virtual_number_is_nobodys_reply_key() -> None:
    def lookup(kind: str, value: str) -> str:
        return f"{kind}:{value}"

    assert address(contact("13812345678"), "13812345678", ("CN",), lookup).reply_key == "phone:+8613812345678"
    assert address(contact("15500001234-5678"), "15500001234-5678", ("CN",), lookup).reply_key == ""
    assert "138" not in repr(replace(address(contact(), "13812345678", ("CN",), lookup), reply_key=""))


def test_the_sandbox_declares_two_channels() -> None:
    assert set(FEATURES) == {SMS, DM}
