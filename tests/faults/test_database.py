"""Cases 9, 10 and 11: the database goes away, loses a connection at the worst moment, or has none to give."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from shared.store.migrate import upgrade_all
from tests.faults.inside import Inside, inside
from tests.faults.lives import a_story
from tests.faults.proxy import Cut, a_proxy
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.processes import LOOPBACK
from tests.support.running import eventually

SLOW = {"BatchRunner._transaction": 0.1}
"""So that a fault finds a batch in its midst."""


async def test_the_database_restarts_and_is_killed(
    kafka: KafkaServer, own_postgres: PostgresServer, unique: str
) -> None:
    """Case 9. Batches, timers and outbox go on by themselves, and nothing is done twice."""
    story = a_story(unique, orders=80)
    url = await asyncio.to_thread(own_postgres.create_database, f"d_{unique}")
    await upgrade_all(url)
    async with inside(f"kafka://{kafka.bootstrap}", url, unique, slow=SLOW) as rig:
        messages = story.messages(rig.topics)
        await rig.publish(messages)
        await rig.applied(30)
        await asyncio.to_thread(own_postgres.restart)
        await rig.applied(60)
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.to_thread(own_postgres.start)
        await rig.later()
        assert rig.worker.ready == ""
        await rig.as_it_should_be(story)


async def test_every_backend_is_killed_again_and_again(kafka: KafkaServer, database: str, unique: str) -> None:
    """Case 9. An administrator ends the connections, the relay's with its locks among them."""
    story = a_story(unique, orders=80)
    async with inside(f"kafka://{kafka.bootstrap}", database, unique, slow=SLOW) as rig:
        await rig.publish(story.messages(rig.topics))
        for applied in (20, 60, 100):
            await rig.applied(applied)
            assert await cut_all(rig) > 1
        await rig.later()
        await cut_all(rig)
        await rig.settled()
        await rig.as_it_should_be(story)


async def cut_all(rig: Inside) -> int:
    async with rig.database.transaction() as connection:
        ended = await connection.scalar(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'headsup'"
            )
        )
        return int(ended or 0)


@pytest.mark.parametrize("cut", Cut)
async def test_the_connection_breaks_during_the_commit(
    cut: Cut, kafka: KafkaServer, postgres: PostgresServer, database: str, unique: str
) -> None:
    """Case 10. Whether the commit happened is not known: the offset row tells, and nothing is lost or done twice."""
    story = a_story(unique, orders=80)
    async with a_proxy(postgres.port, b"COMMIT;") as proxy:
        watched = database.replace(f":{postgres.port}/", f":{proxy.port}/")
        assert f"{LOOPBACK}:{proxy.port}" in watched
        async with inside(f"kafka://{kafka.bootstrap}", watched, unique, own_database_url=database, slow=SLOW) as rig:
            await rig.publish(story.messages(rig.topics))
            for applied in (20, 60, 100, 140):
                await rig.applied(applied)
                proxy.arm(cut, times=3)
            await rig.later()
            assert proxy.cuts >= 6
            assert (rig.gauge("retries_total") or 0) > 0
            await rig.as_it_should_be(story)


async def test_the_pool_is_exhausted(kafka: KafkaServer, database: str, unique: str) -> None:
    """Case 11. Others hold every connection for longer than anyone waits for one; then the work goes on."""
    story = a_story(unique, orders=40)
    async with inside(f"kafka://{kafka.bootstrap}", database, unique, slow=SLOW) as rig:
        await rig.publish(story.messages(rig.topics))
        await rig.applied(20)
        async with AsyncExitStack() as greedy:
            for _ in range(16):
                await greedy.enter_async_context(rig.wired.database.engine.connect())
            before = rig.gauge("retries_total") or 0

            async def refused() -> bool:
                return (rig.gauge("retries_total") or 0) > before

            await eventually(refused, "nobody noticed")
        await rig.later()
        await rig.as_it_should_be(story)
