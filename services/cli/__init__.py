"""The `headsup` command. All services are wired in here, and nowhere else does one process know them all."""

import sys
from typing import Final

import asyncpg
import typer
from sqlalchemy.exc import SQLAlchemyError

import services.detector.__main__ as detector
import services.dispatcher.__main__ as dispatcher
from services.cli import deadletters, doctor, lag, provision, publish, up
from services.cli.context import Service
from shared.errors import HeadsupError
from shared.process import FAILED, USAGE, complain
from shared.settings import BadSettings

SERVICES: Final = (
    Service(detector.SCHEMA, detector.TOPICS, detector.build),
    Service(dispatcher.SCHEMA, dispatcher.TOPICS, dispatcher.build),
)

ABOUT = """Headsup tells a shop's customers about trouble with their order before they have to ask.

`headsup up` is all that it takes to begin: one process, its own database in `./.headsup`, nothing to configure.
"""

EPILOG = """**Settings** come from the environment (`HEADSUP_…`), then from `headsup.toml` in the working directory (or
the file that `HEADSUP_CONFIG` names); docs/headsup.toml explains all of them. `HEADSUP_BUS` is `local:` (the default)
or `kafka://host:port`; `HEADSUP_DATABASE` is `postgresql://…`, and without it `up` runs its own.

**Exit codes**: 0 done; 1 something failed, was refused or is missing, and the text says what to do; 2 wrong usage or
settings.
"""


def application() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        name="headsup",
        help=ABOUT,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)
    app.command(rich_help_panel="Run")(up.up)
    app.command(rich_help_panel="Run")(up.run)
    app.command(rich_help_panel="Run")(publish.publish)
    app.command(rich_help_panel="Look after")(lag.lag)
    letters = typer.Typer(no_args_is_help=True)
    letters.command("list")(deadletters.listing)
    letters.command("show")(deadletters.show)
    letters.command("retry")(deadletters.retry)
    about = "What could not be applied and why: `list`, `show`, `retry`."
    app.add_typer(letters, name="dead-letters", help=about, rich_help_panel="Look after")
    app.command(rich_help_panel="Look after")(lag.resume)
    app.command(rich_help_panel="Look after")(doctor.doctor)
    topics = typer.Typer(no_args_is_help=True)
    topics.command("apply")(provision.topics_apply)
    topics.callback()(lambda: None)
    app.add_typer(topics, name="topics", help="Provision the bus: `topics apply`.", rich_help_panel="Prepare")
    db = typer.Typer(no_args_is_help=True)
    db.command("migrate")(provision.db_migrate)
    db.callback()(lambda: None)
    app.add_typer(db, name="db", help="Provision the database: `db migrate`.", rich_help_panel="Prepare")
    passing = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(rich_help_panel="Prepare", context_settings=passing)(provision.schemas)
    return app


def main() -> None:
    """The console script. Errors that carry an instruction end in their plain text, never in a traceback."""
    try:
        application()(obj={service.name: service for service in SERVICES})
    except BadSettings as error:
        complain(str(error))
        sys.exit(USAGE)
    except HeadsupError as error:
        complain(error.reason)
        sys.exit(FAILED)
    except (SQLAlchemyError, asyncpg.PostgresError) as error:
        cause = getattr(error, "orig", None) or error
        complain(
            f"the database refused ({str(cause).splitlines()[0]}): look at HEADSUP_DATABASE, then `headsup doctor`"
        )
        sys.exit(FAILED)
