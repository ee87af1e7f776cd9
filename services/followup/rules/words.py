"""The words that customers choose, refuse, ask and rage with, in Chinese and English.

All patterns meet text that `replies.plain` has made plain: lower case, half width, simplified, without emoji."""

import re
from typing import Final

from shared.events.notices import RemedyKind

_CARDINALS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth")

NUMERALS: Final = {
    **{sign: value for value, sign in enumerate("零一二三四五六七八九十")},
    **{sign: value for value, sign in enumerate("零壹贰叁肆伍陆柒捌玖拾")},
    **{name: value for value, name in enumerate(_CARDINALS)},
    **{name: value for value, name in enumerate(_ORDINALS, 1)},
}

SIMPLIFIED: Final = str.maketrans(
    "選個號貳參陸萬項種復覆擇還這請訂錢買單貨換繼續滿給謝後會嗎麼時間發說應該沒無須補寄點顆級訴報貨錯騙氣",
    "选个号贰叁陆万项种复复择还这请订钱买单货换继续满给谢后会吗么时间发说应该没无须补寄点颗级诉报货错骗气",
)
"""Traditional characters that the patterns below would miss."""

NUMBER: Final = (
    r"\d+|[零一二三四五六七八九十壹贰叁肆伍陆柒捌玖拾]+|\b(?:one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
ORDINAL: Final = r"\b(?:first|second|third|fourth|fifth|sixth)\b(?: (?:one|option|choice)\b)?"

BEFORE: Final = (
    r"选择|选项|我要选|我想选|我选|选|回复|回|方案|第|我要|我想要|我想|想要|要|就要|就|那就|那|还是|请|帮我"
    r"|麻烦|答案|答"
    r"|你好|您好|亲|嗯+|好的?|哦|我|确认|办理|处理"
    r"|i(?:'d| would) like(?: to have)?|i(?:'ll| will)? (?:choose|pick|select|take|want)|i'll go with|go with"
    r"|my (?:choice|answer) is|choose|choice|pick|select|take|reply|answer|option|number|num\b"
    r"|plan|the\b|please|pls|hi\b|hello|ok(?:ay)?\b|yes\b"
)
AFTER: Final = (
    r"号|项|种方案|种|方案|选项|吧|啊|哦|呀|哈|啦|了|就行|就好|可以|好了|谢谢你|谢谢您|谢谢|多谢|谢了|感谢"
    r"|辛苦了|辛苦"
    r"|please|pls|thanks?(?: you)?|thx|option|one\b|choice"
)
"""What may stand around a number without changing what it means. `个` only after `第`: "2个" is an amount."""

CHOICES: Final[dict[RemedyKind, str]] = {
    RemedyKind.REFUND: (
        r"退款|退货|退钱|退单|退掉|退了|退吧|全退|退回|退给我|给我退|帮我退|想退|要退|退(?=$|[\s,.!;])"
        r"|不要了|不想要了|不买了|取消|撤单|还钱"
        r"|refund(?:ed|s)?|cancel(?:led|l?ation)?|(?:money|payment) back|don'?t want it(?: any ?more)?|return my money"
    ),
    RemedyKind.WAIT: (
        r"等待|继续等|愿意等|可以等|再等|慢慢等|慢慢来|慢慢发|等(?!于|级)|不着急|不急|不赶"
        r"|保留(?:订单)?|留着|继续保留"
        r"|wait(?:ing)?|keep(?: it| my order| the order)?\b|no (?:rush|hurry)|not in a (?:rush|hurry)|take your time"
    ),
    RemedyKind.SWAP: r"换(?:个|一个|一件)?(?:颜色|尺码|尺寸|款)|换货|swap|another (?:colou?r|size)",
    RemedyKind.UPGRADE: r"升级|upgrade",
    RemedyKind.RETURN_RESHIP: r"重发|补发|重新发|重寄|补寄|reship|resend|send (?:a )?new one",
    RemedyKind.PERCENT_BACK: r"接受(?:补偿|折扣)?|返现|partial refund|keep it with",
}
"""The words of each option. They count only where the option is open."""

NOT_NOW: Final = r"等不了|等不及|等不到|等不下去|等不起|等够|没法等|can'?t wait|cannot wait"
"""Waiting refused, in a form where the "not" comes after."""

NOT: Final = re.compile(
    r"(?:不|别|没|勿|莫|无需|无须|懒得|拒绝|讨厌|受够|停止"
    r"|\b(?:not|no|never|don'?t|do not|doesn'?t|won'?t|can'?t|cannot|without|instead of|rather than|tired of|sick of"
    r"|fed up with|stop)\b)[^,.;!\n]{0,14}$"
)
"""Something before a word, in the same clause, that turns it round."""

QUESTION: Final = re.compile(
    r"\?|吗|嘛|呢|么(?=$|[\s,.!])|什么|怎么|怎样|为何|为啥|咋|多久|几天|几号|几点|哪(?:天|个|一|种|里|儿)"
    r"|何时|能不能|可不可以|可否|能否"
    r"|有没有|是不是|会不会|要不要|行不行"
    r"|\b(?:when|why|what|which|where|who|how|can i|could i|could you|can you|may i|should i|is it|are you"
    r"|will (?:it|you)"
    r"|do i|does it|did you)\b"
)
CONDITION: Final = re.compile(
    r"稍等|等一下|等下|等会|^等等$|如果|要是|若是?|假如|除非|否则|不然|再不|还不|万一|的话|实在不行|先问|考虑"
    r"|想想|\b(?:if|unless|otherwise|or else|maybe"
    r"|perhaps|not sure|thinking|think about|depends|already)\b|已经|已申请|申请过|申请了|要么|或者|还是说"
    r"|\bor\b|随便|都行|都可以"
)
ANGER: Final = re.compile(
    r"投诉|举报|12315|12345|差评|骗|垃圾|恶心|律师|起诉|法院|曝光|媒体|消协|工商|欺诈|虚假|气死|滚|妈的|他妈"
    r"|tmd|sb\b|傻|混蛋|无耻|坑人"
    r"|忽悠|什么玩意|太过分|赔偿|赔我|假货"
    r"|\b(?:scam|scammers?|fraud|lawyer|sue|court|complain\w*|complaint|terrible|horrible|awful|ridiculous"
    r"|unacceptable"
    r"|worst|liars?|lying|wtf|fuck\w*|shit\w*|bullshit|disgust\w*|police|report you)\b"
)
COURTESY: Final = re.compile(  # of a text without spaces and signs
    r"(?:谢谢你?您?|多谢|感谢|谢了|好的?|好吧|行|可以|ok(?:ay)?|收到|知道了|了解|明白了?|嗯+|哦+|辛苦了?|没事"
    r"|没关系|满意|很好|不错|thanks?"
    r"|thankyou|you|thx|gotit|great|good|fine|sure|cool|noted|very|much|so|all|亲|啦|哈+|呀|啊|吧|了|的|非常|很|都)+"
)

BESIDES: Final = re.compile(
    rf"(?:{COURTESY.pattern}|请|麻烦|我要|我想|回复|给我|我|短信|信息|消息|通知|推送|订阅|please|ing|me|my|number|from)*"
)
"""Matches what is left of a text that asks for silence where it says nothing else; without spaces and signs."""
