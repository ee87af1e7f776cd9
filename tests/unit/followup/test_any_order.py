"""Any order and any repetition of one case's events ends in the same state, and never in two remedies.

What we caused cannot come before its cause: answers to what the follow-up asked for follow in a second act, which is
shuffled by itself."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.followup.rules.case import settle, state_of
from services.followup.rules.facts import Case
from services.followup.rules.fold import ORDER_EVENTS, fold, fold_order
from services.followup.rules.order import Order
from shared.events.deliveries import Channel, Reason
from shared.events.envelope import Event
from shared.events.incidents import How
from shared.events.notices import Purpose
from shared.events.orders import CustomerContacted, OrderRefundRequested
from tests.support.cases import CaseStory
from tests.support.stories import START, hours

S = CaseStory()
NOW = START + hours(0.4)

WAY = st.sampled_from(
    [
        (S.sent(0.1),),
        (S.sent(0.1), S.delivered(0.11)),
        (S.unknown(0.1), S.delivered(0.15)),
        (S.unknown(0.1),),
        (S.held(0.05, Reason.APPROVAL), S.released(0.08), S.sent(0.1)),
        (S.failed(0.1, final=False), S.sent(0.12, channel=Channel.DM, step=1)),
        (S.failed(0.1),),
    ]
)
SAID = st.sampled_from(
    [
        (),
        (S.reply(0.2, "2"),),
        (S.reply(0.2, "退款"), S.reply(0.22, "我的猫")),
        (S.reply(0.2, "1"), S.order.shipped(0.3)),
        (S.reply(0.2, "什么时候发货？"),),
        (S.reply(0.2, "TD"),),
        (S.reply(0.2, "退订，我的包裹呢"),),
        (S.asked(OrderRefundRequested, 0.2), S.asked(CustomerContacted, 0.25)),
        (S.resolved(0.2, How.CANCELLED),),
        (S.resolved(0.2), S.order.shipped(0.2)),
        (S.resolved(0.2, How.BACK_IN_TIME, revision=3), S.opened(0.3, revision=4)),
        (S.updated(0.2), S.composed(0.21, Purpose.UPDATE, revision=2), S.sent(0.22, Purpose.UPDATE, revision=2)),
    ]
)
AFTER = (
    S.remedied(0.35),
    S.composed(0.36, Purpose.NEXT_STEP),
    S.sent(0.37, Purpose.NEXT_STEP),
    S.order.shipped(0.38),
    S.order.delivered(0.39),
)


class Player:
    def __init__(self) -> None:
        self.case, self.order = Case(S.case_id), Order()
        self.emitted: Counter[tuple[str, str]] = Counter()

    def play(self, events: list[Event[Any]]) -> "Player":
        for event in events:
            if isinstance(event.data, ORDER_EVENTS):
                fold_order(self.order, event)
            fold(self.case, event, NOW)
            self.emitted.update((e.type, e.id) for e in settle(self.case, self.order, NOW, True).emits)
        return self

    @property
    def facts(self) -> dict[str, Any]:
        facts = asdict(self.case)
        # A round that was over before we heard of it was never opened by us: which rounds were is not compared.
        deeds = sorted(name for name in facts.pop("acts") if not name.startswith("opened/"))
        return {**facts, "state": state_of(self.case), "opened": self.case.opened, "deeds": deeds}


@settings(max_examples=300, deadline=None)
@given(data=st.data(), way=WAY, said=SAID)
def test_same_state_and_at_most_one_remedy(
    data: st.DataObject, way: tuple[Event[Any], ...], said: tuple[Event[Any], ...]
) -> None:
    history = [S.opened(), S.composed(0.01), *way, *said]
    plain, mixed = Player(), Player()
    for act in (history, list(AFTER)):
        repeats = data.draw(st.lists(st.sampled_from(act), max_size=5))
        plain.play(act)
        mixed.play(data.draw(st.permutations([*act, *repeats])))
        assert mixed.facts == plain.facts
    for player in (plain, mixed):
        assert all(times == 1 for times in player.emitted.values())
        assert sum(1 for kind, _ in player.emitted if kind == "remedy.requested.v1") <= 1
        assert sum(1 for kind, _ in player.emitted if kind == "choice.made.v1") <= 1


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["1", "2", "退款", "等", "选2", "不退款", "随便", "好的"]), min_size=1, max_size=6),
    data=st.data(),
)
def test_whatever_is_said_in_whatever_order_one_remedy_at_most(texts: list[str], data: st.DataObject) -> None:
    replies = [S.reply(0.1 + n / 100, text) for n, text in enumerate(texts)]
    history = [S.opened(), S.composed(0.01), S.sent(0.05), *replies, S.remedied(0.3)]
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=6))
    player = Player().play(data.draw(st.permutations([*history, *repeats])))
    kinds = Counter(kind for kind, _ in player.emitted.elements())
    assert kinds["remedy.requested.v1"] <= 1
    assert kinds["remedy.requested.v1"] == kinds["choice.made.v1"] == (player.case.choice is not None)
