"""Cases 24, 27 and 32 in the loop: a customer who opts out while a message is under way, one who is called like a
template, and what is written down of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
from sqlalchemy import text

from shared.bus.port import Message
from shared.events.topics import DEAD_LETTERS, ORDERS
from tests.faults.town import CHAT, PHONE, SERVICE_NAMES, Town, a_town
from tests.support.running import eventually, read_topic

CODE: Final = "{{sms}}鲸鱼"
KEPT: Final = (
    "CREATE SCHEMA kept",
    "CREATE TABLE kept.said (service text, topic text, key text, value text, headers text)",
    "CREATE FUNCTION kept.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO kept.said VALUES"
    " (TG_TABLE_SCHEMA, new.topic, convert_from(new.key, 'UTF8'), convert_from(new.value, 'UTF8'), new.headers);"
    " RETURN new; END $$",
    *(
        f"CREATE TRIGGER kept AFTER INSERT ON {name}.outbox FOR EACH ROW EXECUTE FUNCTION kept.note()"
        for name in SERVICE_NAMES
    ),
)
"""What passes through an outbox stays to be looked at."""


async def test_opting_out_while_the_message_is_under_way(database: str, tmp_path: Path) -> None:
    """It has left and counts as sent; no SMS follows it, while the chat stays open."""
    async with a_town("local:", database, tmp_path, patience=15) as town:
        town.providers.gate.clear()
        await town.late("T1")
        await eventually(lambda: _two_accepted(town), "nothing was handed over")
        await town.answered("退订", "in-1")
        town.providers.gate.set()

        async def all_sent() -> bool:
            return {one.state for one in await town.attempts("T1")} == {"sent"}

        await eventually(all_sent, "the calls under way were not recorded")
        await town.late("T2")

        async def told_by_chat() -> bool:
            return [one.state for one in await town.attempts("T2")] == ["sent"]

        await eventually(told_by_chat, "the chat was not used")
        await town.as_it_should_be("T1")
        assert sorted(one.channel for one in town.providers.accepted) == ["dm", "dm", "sms"]
        assert await town.remedies("T1") == []


async def _two_accepted(town: Town) -> bool:
    return len(town.providers.accepted) == 2


async def test_a_story_leaves_no_trace_of_whom_it_was_about(database: str, tmp_path: Path) -> None:
    """At DEBUG: no phone, chat account, nickname or secret in any output, figure or dead letter, and none but the
    nickname in what travels. The nickname is template code and comes out as it went in."""
    once = {"dispatcher": [("Recording.record: after commit", 2), ("", 1)]}
    async with a_town("local:", database, tmp_path, once, nickname=CODE) as town:
        async with town.database.transaction() as connection:
            for statement in KEPT:
                await connection.execute(text(statement))
        await _spoil(town)
        assert await town.live_through("T1") == "closed"
        await town.answered(f"请打我电话{PHONE}", "in-2")
        chats = [one.text for one in town.providers.accepted if one.channel == "dm"]
        assert chats
        assert CODE in chats[0]

        async def buried() -> bool:
            return len(await town.rows("SELECT 1 FROM detector.dead_letters")) >= 2

        await eventually(buried, "the spoilt records were not put aside")
        nowhere = (PHONE, PHONE[-8:], CHAT, *town.secrets)
        seen = {"output": town.log(), "figures": await _figures(town), "letters": await _letters(town)}
        for where, what in seen.items():
            assert what, where
            for hidden in (*nowhere, CODE, "鲸鱼"):
                assert hidden not in what, f"{hidden} is in the {where}"
        said = await town.rows("SELECT service, topic, key, value, headers FROM kept.said")
        assert {one.service for one in said} == set(SERVICE_NAMES)
        assert any(CODE in one.value for one in said), "whoever looks for something must be able to find it"
        for one in said:
            for hidden in nowhere:
                assert hidden not in str(one), f"{one.service} said {hidden} on {one.topic}"


async def _spoil(town: Town) -> None:
    """What can never be applied, by the bus and by REST, with all of it inside."""
    now = datetime.now(UTC).isoformat()
    bad = (
        f'{{"order_id": "T9", "store_id": 7, "customer": {{"nickname": "{CODE}", "phone": "{PHONE}"}}, "at": "{now}"}}'
    )
    headers = (("ce_type", b"order.paid.v1"), ("ce_id", b"x1"), ("ce_source", b"shop"), ("ce_time", now.encode()))
    producer = town.bus.producer()
    await producer.start()
    await producer.send(
        [Message(ORDERS, b"T9", bad.encode(), headers), Message(ORDERS, b"T8", f"{PHONE} {CODE}".encode())]
    )
    await producer.stop()
    calls = (
        ("GET", f"{town.urls['dispatcher']}/v1/hooks/kannel/{town.secrets[3]}/inbound?from={PHONE}"),
        ("GET", f"{town.urls['dispatcher']}/v1/hooks/kannel/wrong/inbound?from={PHONE}&text={CODE}&id=1"),
        ("POST", f"{town.urls['detector']}/v1/events"),
        ("GET", f"{town.urls['followup']}/v1/cases?order_id={PHONE}"),
    )
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {town.secrets[1]}"}, timeout=10) as client:
        for method, url in calls:

            async def call(method: str = method, url: str = url) -> bool:
                try:
                    answer = await client.request(method, url, content=bad if method == "POST" else None)
                except httpx.TransportError:
                    return False
                return answer.status_code > 0

            await eventually(call, "nobody is in")


async def _figures(town: Town) -> str:
    async with httpx.AsyncClient(timeout=10) as client:
        return "".join([(await client.get(f"{url}/metrics")).text for url in town.urls.values()])


async def _letters(town: Town) -> str:
    kept = [str(await town.rows(f"SELECT l::text FROM {name}.dead_letters l")) for name in SERVICE_NAMES]
    told = [f"{one.key!r} {one.value!r} {one.headers}" for one in await read_topic(town.bus, DEAD_LETTERS)]
    return "".join(kept + told)
