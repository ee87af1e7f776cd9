"""The composer on a real bus and a real database: which events become which notices."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from services.composer.__main__ import TOPICS
from shared.clock import VirtualClock
from shared.events.cases import CaseClosed, CaseOpened, ChoiceMade, ClosedAs
from shared.events.contacts import Contact, RecipientKind
from shared.events.deliveries import NoticeSent
from shared.events.envelope import Event, event
from shared.events.incidents import How, IncidentResolved, IncidentUpdated, Scenario
from shared.events.notices import NoticeComposed, Purpose, RemedyKind
from shared.events.stores import Mode, StoreConfigured
from shared.events.topics import CASES, DELIVERIES, INCIDENTS, SETTINGS
from tests.support.composing import Composing, composer_at_work
from tests.unit.composer.facts import NOW, SHIP_AT, incident, order, request

ABOUT: dict[str, Any] = {
    "incident_id": "I-1",
    "store_id": "shop-1",
    "order_id": "202612121001",
    "scenario": Scenario.SHIPPING_DELAY,
    "at": NOW,
}


def ev(data: Any, number: int = 0, minutes: float = 0) -> Event[Any]:
    name = f"{data.TYPE}-{getattr(data, 'incident_id', '')}-{getattr(data, 'revision', 0)}-{number}"
    return event(data, id=name, source="test", time=NOW + timedelta(minutes=minutes))


def opened(**changes: Any) -> Event[Any]:
    return ev(incident(**changes))


def updated(revision: int = 2, ship_at: datetime = SHIP_AT + timedelta(days=1), **changes: Any) -> Event[Any]:
    return ev(incident(IncidentUpdated, revision=revision, new_date=ship_at, **changes))


def resolved(how: How = How.SHIPPED, revision: int = 3, **changes: Any) -> Event[Any]:
    return ev(incident(IncidentResolved, revision=revision, how=how, **changes))


def sent(
    purpose: Purpose = Purpose.FIRST_CONTACT, notice: NoticeComposed | None = None, minutes: float = 0
) -> Event[Any]:
    which = {"notice_id": notice.notice_id, "told_date": notice.told_date} if notice else {"notice_id": "N-1"}
    about = {**ABOUT, "at": NOW + timedelta(minutes=minutes)}
    return ev(NoticeSent(purpose=purpose, **which, **about), int(minutes))


def chose(code: RemedyKind, incident_id: str = "I-1", notice: NoticeComposed | None = None) -> Event[Any]:
    about = {**ABOUT, "incident_id": incident_id, "notice_id": notice.notice_id if notice else "N-1"}
    return ev(ChoiceMade(case_id=incident_id, number=2, code=code, currency="CNY", **about))


def asks(purpose: Purpose, **changes: Any) -> Event[Any]:
    return ev(request(purpose, **changes))


def purposes(notices: list[NoticeComposed]) -> list[Purpose]:
    return [notice.purpose for notice in notices]


def test_it_reads_what_it_says() -> None:
    assert set(TOPICS) == {INCIDENTS, CASES, DELIVERIES, SETTINGS}


async def test_an_incident_becomes_a_first_contact(composer: Composing) -> None:
    await composer.publish(opened())
    [notice] = await composer.notices()
    assert notice.purpose is Purpose.FIRST_CONTACT
    assert notice.hold is None
    assert notice.incident_id == "I-1"
    assert notice.contacts == order().contacts
    assert [option.number for option in notice.options] == [1, 2]
    assert "12月16日" in str(notice.texts.sms)


async def test_the_same_again_changes_nothing(composer: Composing) -> None:
    await composer.publish(opened(), opened())
    await composer.publish(opened())
    await composer.publish(asks(Purpose.REMINDER), asks(Purpose.REMINDER))
    await composer.publish(asks(Purpose.REMINDER))
    rows = await composer.rows("SELECT count(*) FROM composer.outbox")
    assert purposes(await composer.notices()) == [Purpose.FIRST_CONTACT, Purpose.REMINDER]
    assert rows[0][0] == 0
    assert await composer.letters() == 0


async def test_a_change_before_and_after_the_customer_was_told(composer: Composing) -> None:
    await composer.publish(opened())
    await composer.publish(updated(2))
    await composer.publish(sent())
    await composer.publish(updated(3))
    found = await composer.notices()
    assert purposes(found) == [Purpose.FIRST_CONTACT, Purpose.FIRST_CONTACT, Purpose.UPDATE]
    assert len({notice.notice_id for notice in found}) == 3
    assert [option.number for option in found[-1].options] == [1, 2]
    assert "12月17日" in str(found[-1].texts.dm)
    assert [notice.money_reserved for notice in found] == [10, 10, 0]


async def test_an_older_revision_that_comes_late_is_nothing(composer: Composing) -> None:
    await composer.publish(updated(2))
    await composer.publish(opened())
    [notice] = await composer.notices()
    assert notice.revision == 2


async def test_a_broken_must_goes_out_as_held(composer: Composing) -> None:
    await composer.publish(opened(cause="carrier_lost"), opened(incident_id="I-2", new_date=None))
    dishonest, dateless = sorted(await composer.notices(), key=lambda notice: notice.incident_id)
    assert dishonest.hold is not None
    assert dishonest.hold.must == "honest"
    assert dateless.hold is not None
    assert dateless.hold.must == "date"


@pytest.mark.parametrize(
    ("how", "chosen", "wanted"),
    [
        (How.SHIPPED, None, [Purpose.GOOD_NEWS]),
        (How.BACK_IN_TIME, None, [Purpose.GOOD_NEWS]),
        (How.SHIPPED, RemedyKind.WAIT, [Purpose.GOOD_NEWS]),
        (How.SHIPPED, RemedyKind.REFUND, []),
        (How.REFUNDED, None, []),
    ],
)
async def test_an_end(composer: Composing, how: How, chosen: RemedyKind | None, wanted: list[Purpose]) -> None:
    await composer.publish(opened())
    if chosen is not None:
        await composer.publish(chose(chosen))
    await composer.publish(resolved(how))
    assert purposes((await composer.notices())[1:]) == wanted


async def test_no_new_offer_after_a_choice(composer: Composing) -> None:
    await composer.publish(opened())
    [first] = await composer.notices()
    await composer.publish(sent(notice=first))
    await composer.publish(chose(RemedyKind.REFUND))
    await composer.publish(updated())
    assert purposes(await composer.notices()) == [Purpose.FIRST_CONTACT]


async def test_who_waits_is_told_when_the_date_moves_again(composer: Composing) -> None:
    await composer.publish(opened())
    [first] = await composer.notices()
    waits = chose(RemedyKind.WAIT, notice=first)
    await composer.publish(waits)
    await composer.publish(updated(2, ship_at=SHIP_AT + timedelta(hours=1)))
    assert purposes(await composer.notices()) == [Purpose.FIRST_CONTACT]
    await composer.publish(updated(3))
    update = (await composer.notices())[-1]
    assert update.purpose is Purpose.UPDATE
    assert update.hold is None
    assert update.money_reserved == 0
    assert "12月17日" in str(update.texts.sms)
    assert [option.number for option in update.options] == [1, 2]
    await composer.publish(sent(Purpose.UPDATE, update, minutes=60), waits)
    assert len(await composer.rows("SELECT 1 FROM composer.digits")) == 2
    await composer.publish(updated(4, cause="supplier_late"))
    assert len(await composer.notices()) == 2


async def test_an_update_that_is_not_out_yet_is_written_anew(composer: Composing) -> None:
    """The dispatcher drops the older one, and the customer still counts on the date before."""
    await composer.publish(opened())
    [first] = await composer.notices()
    await composer.publish(chose(RemedyKind.WAIT, notice=first))
    await composer.publish(updated(2))
    await composer.publish(updated(3))
    assert purposes(await composer.notices()) == [Purpose.FIRST_CONTACT, Purpose.UPDATE, Purpose.UPDATE]


async def test_what_the_follow_up_asks_for(composer: Composing) -> None:
    await composer.publish(opened())
    refund = {"code": RemedyKind.REFUND, "amount": Decimal("129.00"), "due_at": NOW + timedelta(hours=1)}
    await composer.publish(asks(Purpose.NEXT_STEP, request_id="Q-2", **refund))
    await composer.publish(ev(request(Purpose.SATISFACTION, request_id="Q-3", code=RemedyKind.REFUND), 3))
    await composer.publish(ev(request(Purpose.CORRECTION, request_id="Q-4"), 4))
    _, step, question, correction = await composer.notices()
    assert (step.purpose, step.request_id, step.options) == (Purpose.NEXT_STEP, "Q-2", ())
    assert "129元" in str(step.texts.sms)
    assert question.purpose is Purpose.SATISFACTION
    assert question.texts.sms is None
    assert correction.purpose is Purpose.CORRECTION
    assert all(notice.hold is None for notice in (step, question, correction))


async def test_a_request_waits_for_its_incident(composer: Composing) -> None:
    await composer.publish(asks(Purpose.REMINDER))
    assert await composer.notices() == []
    await composer.publish(opened())
    assert purposes(await composer.notices()) == [Purpose.FIRST_CONTACT, Purpose.REMINDER]


@pytest.mark.parametrize("order_of", list(permutations(range(3))))
async def test_any_order_of_topics_ends_the_same(composer: Composing, order_of: tuple[int, ...]) -> None:
    events = [opened(), sent(), chose(RemedyKind.WAIT)]
    for index in order_of:
        await composer.publish(events[index])
    [state] = await composer.rows(
        "SELECT convert_from(state, 'UTF8')::json->>'told', convert_from(state, 'UTF8')::json->>'chosen',"
        " incident IS NOT NULL FROM composer.incidents"
    )
    assert tuple(state) == ("true", "wait", True)


async def test_digits_continue_for_one_address_and_are_freed(composer: Composing) -> None:
    await composer.publish(opened())
    await composer.publish(opened(incident_id="I-2"))
    await composer.publish(ev(request(Purpose.REMINDER, incident_id="I-2", request_id="Q-2")))
    first, second, reminder = await composer.notices()
    assert [o.number for o in first.options] == [1, 2]
    assert [o.number for o in second.options] == [3, 4]
    assert [o.number for o in reminder.options] == [3, 4]
    assert "回3继续等" in str(second.texts.sms)
    await composer.publish(chose(RemedyKind.REFUND))
    assert [tuple(r) for r in await composer.rows("SELECT number, incident_id FROM composer.digits ORDER BY 1")] == [
        (3, "I-2"),
        (4, "I-2"),
    ]
    await composer.publish(resolved(incident_id="I-2"))
    await composer.publish(opened(incident_id="I-3"))
    assert [o.number for o in (await composer.notices())[-1].options] == [1, 2]
    closed = CaseClosed(
        case_id="I-3", closed_as=ClosedAs.WITHDRAWN, cause="unknown", currency="CNY", **{**ABOUT, "incident_id": "I-3"}
    )
    await composer.publish(ev(closed))
    assert await composer.rows("SELECT 1 FROM composer.digits") == []


async def test_one_batch_numbers_many_incidents_of_one_phone(composer: Composing) -> None:
    """Their orders lie on different partitions, whose transactions overlap."""
    await composer.publish(*(opened(incident_id=f"I-{n}", facts=order(order_id=f"T-{n}")) for n in range(40)))
    numbers = [option.number for notice in await composer.notices() for option in notice.options]
    assert sorted(numbers) == list(range(1, 81))


async def test_an_address_without_a_digit_left_is_a_persons(composer: Composing) -> None:
    await composer.publish(*(opened(incident_id=f"I-{n}", facts=order(order_id=f"T-{n}")) for n in range(50)))
    held = [notice for notice in await composer.notices() if notice.hold is not None]
    assert len(held) == 1
    assert held[0].hold is not None
    assert held[0].hold.must == "options"


async def test_other_addresses_have_digits_of_their_own(composer: Composing) -> None:
    other = Contact(kind=RecipientKind.CHAT_ID, sealed="c2VhbGVk", lookup="f" * 64)
    await composer.publish(opened(), opened(incident_id="I-2", facts=order(contacts=(other,))))
    assert [[o.number for o in n.options] for n in await composer.notices()] == [[1, 2], [1, 2]]


async def test_modes(composer: Composing) -> None:
    def store(mode: Mode, minutes: int) -> Event[Any]:
        modes = {Scenario.SHIPPING_DELAY: mode}
        return ev(StoreConfigured(store_id="shop-1", name="小鱼家", modes=modes), minutes, minutes)

    await composer.publish(store(Mode.OFF, 1))
    await composer.publish(opened())
    assert await composer.notices() == []
    await composer.publish(asks(Purpose.REMINDER))
    assert purposes(await composer.notices()) == [Purpose.REMINDER]
    await composer.publish(store(Mode.SHADOW, 2))
    await composer.publish(updated())
    shadow = (await composer.notices())[-1]
    assert shadow.purpose is Purpose.FIRST_CONTACT
    assert shadow.money_reserved == 0
    await composer.publish(store(Mode.LIVE, 3))
    await composer.publish(updated(3))
    live = (await composer.notices())[-1]
    assert live.money_reserved == 10
    assert str(live.texts.sms).startswith("【小鱼家】")


async def test_a_store_that_nobody_set_up(database: str) -> None:
    async with composer_at_work(database, VirtualClock(NOW), new_stores="hold") as composer:
        await composer.publish(opened())
        assert purposes(await composer.notices()) == [Purpose.FIRST_CONTACT]


async def test_what_is_none_of_its_business_changes_nothing(composer: Composing) -> None:
    await composer.publish(ev(CaseOpened(case_id="I-1", **ABOUT)), opened(scenario=Scenario.MINOR_DEFECT))
    assert await composer.notices() == []
    assert await composer.letters() == 0
