"""Schema migrations: Alembic, one PostgreSQL schema and one line of history a service.

By convention a folder `services/<name>/migrations` is the schema `<name>`, which also gets the platform's tables
(`shared/store/migrations`); the local bus's log is the schema `bus`. Nothing is registered anywhere else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from shared.store.database import Database

_ROOT = Path(__file__).resolve().parents[2]
_LOCK = 0x68656164


def schemas() -> Mapping[str, Sequence[Path]]:
    """Every schema with the folders of its migrations."""
    found: dict[str, Sequence[Path]] = {"bus": [_ROOT / "shared/bus/migrations"]}
    for folder in sorted((_ROOT / "services").glob("*/migrations")):
        found[folder.parent.name] = [_ROOT / "shared/store/migrations", folder]
    return found


async def upgrade_all(url: str) -> None:
    """Bring every schema to its newest version. Safe to run twice, and by two at once (the second waits)."""
    database = Database(url, pool_size=1)
    try:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            for schema, folders in schemas().items():
                await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
                await connection.run_sync(_upgrade, schema, folders)
    finally:
        await database.close()


async def pending(database: Database) -> Sequence[str]:
    """The schemas that are not at their newest version, for readiness and doctor."""
    async with database.transaction() as connection:
        return [s for s, folders in schemas().items() if await connection.run_sync(_behind, s, folders)]


def _config(connection: Connection, schema: str, folders: Sequence[Path]) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_ROOT / "shared/store/alembic"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(folder) for folder in folders))
    config.attributes.update(connection=connection, schema=schema)
    return config


def _upgrade(connection: Connection, schema: str, folders: Sequence[Path]) -> None:
    command.upgrade(_config(connection, schema, folders), "heads")


def _behind(connection: Connection, schema: str, folders: Sequence[Path]) -> bool:
    heads = set(ScriptDirectory.from_config(_config(connection, schema, folders)).get_heads())
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    return set(context.get_current_heads()) != heads
