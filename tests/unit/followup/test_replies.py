"""What customers write, and what it means while 1 waits and 2 refunds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.followup.rules.replies import Meaning, read
from shared.events.notices import RemedyKind
from shared.events.replies import opts_out

OPTIONS = {1: RemedyKind.WAIT, 2: RemedyKind.REFUND}

ONE = """1|１|①|❶|1️⃣|⑴|⒈|一|壹|【1】|1。| 1 |1！|选1|选一|选择1|我选1|方案一|方案1|第一个|第1个|第一种|1号|回复1|回复：1
我要1|我想选1|就1吧|那就1|1吧|1，谢谢|1 谢谢|你好，1|好的 1|option 1|Option one|no. 1|No.1|#1|the first one
1 please|choice 1|first|I choose 1|👌1👌|1😊|"1"|選1|一号方案|第一项|1，继续等|1 等|1.|(1)|reply 1"""

TWO = """2|２|②|❷|2️⃣|⑵|⒉|二|贰|貳|选2|选二|选择2|我选二|方案二|方案2|第二个|第2个|第二种|2号|回复2|我要2|我要第二个|就2
那就选2吧|2吧谢谢|2,谢谢|2 退款|选2，退款|2。退款吧|option 2|option two|no. 2|no 2|#2|number 2|the second one
second|I'll take 2|2 thanks|two|ＯＰＴＩＯＮ　２|2!!!|2\\n谢谢|選2|第貳個|麻烦选2|请帮我选2"""

WAIT = """等|继续等|我等|愿意等|可以等|再等等吧|不着急|不急|慢慢来，不着急|那就等吧|等着|等待|我继续等，谢谢|保留订单
wait|I'll wait|I will wait|keep|keep my order|keep waiting|no rush|no hurry, thanks|happy to wait|不退款，我等
不用退款，继续等|不退了，等吧|不取消，我继续等|don't refund, I'll wait|please don't cancel, I will wait
take your time|繼續等"""

REFUND = """退款|退钱|退货退款|不要了|不想要了|不买了|取消|取消订单|退款吧|请退款|给我退款|我要退款|帮我退了吧|退了吧
退吧|我要退|全退|退錢|refund|Refund please|I want a refund|cancel|cancel my order|cancel it please|money back
I want my money back|please refund me|不想等了，退款|不等了，退款|等不及了，退款|等不了了 退款
I can't wait, refund me|I don't want to wait, please refund|太慢了，退款|退款！！！|😡退款|訂單取消
i don't want it anymore"""

UNCLEAR = """3|0|12|22|2222|1.2|1 2|1或2|1和2|1、2|1/2|选1还是选2|½|99999999999999999999|2个|2天|两天|3天后发|12月2号
2号发货|2件都要|不要2|不选2|不要选1|别选2|2不要|不退款|不要退款|我不退款|不是要退款|别退款|不用退|别取消|不取消|不想等了
不等了|等不及了|没法等|不想继续等|don't refund|do not refund|no refund|never cancel|don't want to wait
I can't wait|not waiting|tired of waiting|can't wait any longer|退款还是等|等退款|我等你们退款|refund or wait
1 退款|2 等|选1，退款|等一下|稍等|等会|等等|换一个颜色|换货|升级|可以退款吗|能不能退款|退款要多久|什么时候发货
怎么退款|2?|选2可以吗|为什么还不发货|can I get a refund?|when will it ship|how do I cancel|再不发货就退款
如果明天不发就退款|实在不行就退款|要是还不发我就取消|if it isn't shipped, cancel|maybe refund|我已经申请退款了
随便|都可以|不要再发了|骗子，退款|投诉你们|垃圾店 退钱|我要投诉，退款|你们什么玩意|this is a scam, refund|I will sue you
差评|尽快发货|赶紧发货|今天必须发|你好|在吗|好的|嗯|谢谢|ok|？|...|😀|👍|哈哈哈|今天天气不错|我的地址改一下
有图片吗|一直没收到|一下|一起发吧|万一呢|十分生气|第三个|option 3|no. 7|方案三|三|five|5|5分|五星|⭐⭐⭐⭐⭐
…5678|2 但是要快|1 但是周五前必须到|选2，不退款|1，不等了|要不退款吧"""

OPT_OUT = """退订|TD|td|T|回复TD|退订短信|拒收|unsubscribe|STOP|stop|别再给我发短信了|please stop texting me
取消订阅|退订，谢谢|我要退订|请退订"""

OPT_OUT_AND_MORE = """退订，我的包裹呢|垃圾店，退订|退款，退订|退订 2|取消订阅，快点|别再给我发短信了，我已经申请退款了
unsubscribe and refund me|包裹坏了退订|选1，别再发短信"""

SCORES = [
    *[
        ("5", 5),
        ("五", 5),
        ("5分", 5),
        ("五星", 5),
        ("5 stars", 5),
        ("５", 5),
        ("⑤", 5),
        ("打5分", 5),
        ("给4分", 4),
        ("4", 4),
    ],
    *[
        ("3分，慢了点", 3),
        ("5，很好", 5),
        ("1 太慢", 1),
        ("1星", 1),
        ("⭐⭐⭐⭐", 4),
        ("🌟🌟🌟🌟🌟", 5),
        ("five", 5),
        ("4/5", 4),
    ],
    *[("2 out of 5", 2), ("I give 5 stars", 5), ("五分！谢谢", 5), ("4颗星", 4), ("score: 3", 3), ("2", 2)],
]
NO_SCORES = "6|0|10分|2天才到|100分|3到4分|给5分还是4分|满意|不知道|55|-"


def phrases(text: str) -> list[str]:
    return [p.replace("\\n", "\n") for line in text.splitlines() for p in line.split("|")]


@pytest.mark.parametrize("text", phrases(ONE) + phrases(WAIT))
def test_chooses_to_wait(text: str) -> None:
    assert read(text, OPTIONS)[:2] == (Meaning.CHOICE, 1)


@pytest.mark.parametrize("text", phrases(TWO) + phrases(REFUND))
def test_chooses_the_refund(text: str) -> None:
    assert read(text, OPTIONS)[:2] == (Meaning.CHOICE, 2)


@pytest.mark.parametrize("text", phrases(UNCLEAR))
def test_leaves_it_to_a_person(text: str) -> None:
    found = read(text, OPTIONS)
    assert found[:2] == (Meaning.UNCLEAR, None)
    assert found.reason


@pytest.mark.parametrize("text", phrases(OPT_OUT))
def test_asks_for_silence(text: str) -> None:
    assert read(text, OPTIONS).meaning is Meaning.OPT_OUT
    assert read(text, OPTIONS, scoring=True).meaning is Meaning.OPT_OUT


@pytest.mark.parametrize("text", phrases(OPT_OUT_AND_MORE))
def test_silence_and_something_else_is_a_persons(text: str) -> None:
    """It opts out all the same: who opted out hears no answer from us, so that a person must see to the rest."""
    assert opts_out(text)
    assert read(text, OPTIONS)[:2] == (Meaning.UNCLEAR, None)


@pytest.mark.parametrize("text", phrases(ONE) + phrases(TWO) + phrases(WAIT) + phrases(REFUND))
def test_a_choice_does_not_ask_for_silence(text: str) -> None:
    assert not opts_out(text)


@pytest.mark.parametrize(("text", "score"), SCORES)
def test_scores_only_while_asked(text: str, score: int) -> None:
    assert read(text, OPTIONS, scoring=True)[:2] == (Meaning.SCORE, score)
    assert read(text, OPTIONS).meaning is not Meaning.SCORE


@pytest.mark.parametrize("text", phrases(NO_SCORES))
def test_is_no_score(text: str) -> None:
    assert read(text, {}, scoring=True).meaning is Meaning.UNCLEAR


@pytest.mark.parametrize("text", ["谢谢", "好的，谢谢", "ok", "Thanks!", "收到", "嗯嗯", "Thank you so much"])
def test_a_courtesy_after_the_choice_needs_nobody(text: str) -> None:
    assert read(text, OPTIONS, settled=True).meaning is Meaning.COURTESY
    assert read(text, OPTIONS).meaning is Meaning.UNCLEAR


def test_numbers_go_on_where_another_notice_is_open() -> None:
    options = {3: RemedyKind.WAIT, 4: RemedyKind.REFUND}
    assert read("2", options).meaning is Meaning.UNCLEAR
    assert read("选4", options).number == 4
    assert read("退款", options).number == 4
    assert read("12", {11: RemedyKind.WAIT, 12: RemedyKind.REFUND}).number == 12
    assert read("十二", {11: RemedyKind.WAIT, 12: RemedyKind.REFUND}).number == 12


def test_words_that_fit_two_options_choose_none() -> None:
    options = {1: RemedyKind.SWAP, 2: RemedyKind.SWAP, 3: RemedyKind.REFUND}
    assert read("换货", options).meaning is Meaning.UNCLEAR
    assert read("换货", {1: RemedyKind.SWAP, 2: RemedyKind.REFUND}).number == 1


def test_a_long_text_is_read_by_a_person() -> None:
    assert read("退款" + "。" * 300, OPTIONS).meaning is Meaning.UNCLEAR


@given(st.text(), st.booleans(), st.booleans())
def test_reading_never_fails(text: str, scoring: bool, settled: bool) -> None:
    found = read(text, OPTIONS, scoring=scoring, settled=settled)
    assert found.meaning is not Meaning.CHOICE or found.number in OPTIONS


@given(st.text(alphabet="不别没退款等了，。 12选吗dontrefuwaicl'", max_size=12))
def test_a_refused_refund_is_never_chosen_by_word(text: str) -> None:
    assert read(f"不要退款{text}", {2: RemedyKind.REFUND}).meaning is not Meaning.CHOICE
