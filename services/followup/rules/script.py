"""What an agent says on the phone to the customer of an important order."""

from zoneinfo import ZoneInfo

from services.followup.rules.facts import Case
from shared.events.stores import StoreConfigured


def script(case: Case, notice_id: str, store: StoreConfigured) -> str:
    """The same facts as the message, to be said freely, in its language and with the date as the store's day has it."""
    incident = case.incident
    assert incident is not None
    notice = case.notices.get(notice_id)
    date = (notice.told_date if notice else None) or incident.new_date
    local = date.astimezone(ZoneInfo(store.time_zone)) if date else None
    options = [f"{o.number} {o.label}" for o in notice.options] if notice else []
    if ((notice.language if notice else "") or store.language).startswith("zh"):
        happened = "没能按时发出" if incident.breached else "可能要晚些发出"
        parts = [
            f"{who(case)}，您好，您买的{incident.product or '商品'}{happened}，先向您道歉。",
            f"最晚 {local:%Y年%m月%d日} 发出。" if local else "发货时间正在核实，有结果马上告诉您。",
            f"您可以选择：{'；'.join(options)}。" if options else "",
            "（请记下顾客的选择，在任务里作答。）",
        ]
        return "".join(parts)
    happened = "was not sent in time" if incident.breached else "may be sent later than planned"
    parts = [
        f"Hello {incident.nickname or 'there'}, your {incident.product or 'order'} {happened}; we are sorry.",
        f"It leaves by {local:%B} {local.day}, {local.year} at the latest."
        if local
        else "We are finding out when it leaves, and will tell you as soon as we know.",
        f"You can choose: {'; '.join(options)}." if options else "",
        "(Note what the customer chooses, and answer in the task.)",
    ]
    return " ".join(part for part in parts if part)


def who(case: Case) -> str:
    return (case.incident.nickname if case.incident else "") or "顾客"
