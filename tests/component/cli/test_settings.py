"""Settings and the command's own words."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from shared.settings import Settings
from tests.component.cli.support import ROOT, Cli


def test_every_setting_is_documented_with_its_default() -> None:
    lines = (ROOT / "docs/headsup.toml").read_text().splitlines()
    # A commented setting is `# name = value`; words in comments are never followed by an equals sign there.
    text = "\n".join(line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in lines)
    documented = tomllib.loads(text)

    def compare(model: type[BaseModel], section: dict[str, object]) -> None:
        assert section.keys() == model.model_fields.keys()
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                value = section[name]
                assert isinstance(value, dict)
                compare(kind, value)
            else:
                default = field.default
                plain = default.get_secret_value() if hasattr(default, "get_secret_value") else default
                assert section[name] == (str(plain) if isinstance(plain, Path) else plain), name

    compare(Settings, documented)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HEADSUP_PORT": "eighty"}, "HEADSUP_PORT"),
        ({"HEADSUP_BUS": "rabbit://x"}, "HEADSUP_BUS"),
        ({"HEADSUP_BUS": "kafka://"}, "HEADSUP_BUS"),
        ({"HEADSUP_DATABASE": "mysql://u:hunter2@h/d"}, "HEADSUP_DATABASE"),
        ({"HEADSUP_DATABASE": "postgresql://u:hunter2@h/d"}, "HEADSUP_SECRET"),
        ({"HEADSUP_SECRET": "hunter2"}, "HEADSUP_SECRET"),
        ({"HEADSUP_API_KEY": "hunter2"}, "HEADSUP_API_KEY"),
        ({"HEADSUP_CLOCK": "virtual:yesterday"}, "HEADSUP_CLOCK"),
        ({"HEADSUP_CLOCK": "virtual:2026-11-11T00:00:00"}, "HEADSUP_CLOCK"),
        ({"HEADSUP_CLOCK": "virtual@-1"}, "HEADSUP_CLOCK"),
        ({"HEADSUP_BUS": "kafka://x:1", "HEADSUP_CLOCK": "virtual", "HEADSUP_SECRET": "A" * 43 + "="}, "HEADSUP_CLOCK"),
        ({"HEADSUP_DETECTOR__WARN_BEFORE_HOURS": "-1"}, "HEADSUP_DETECTOR__WARN_BEFORE_HOURS"),
        ({"HEADSUP_BRIDGE__URL": "https://x", "HEADSUP_BRIDGE__HOOK_SECRET": "hunter2"}, "HEADSUP_BRIDGE"),
        ({"HEADSUP_CONFIG": "/nowhere.toml"}, "HEADSUP_CONFIG"),
    ],
)
def test_bad_settings_are_named(cli: Cli, variables: dict[str, str], named: str) -> None:
    done = cli("lag", **variables)
    assert done.returncode == 2
    assert named in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_file_is_read_and_the_environment_wins(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('port = "many"\ncolour = "red"\n[detector]\nwarn_before_hours = 6\n')
    done = cli("lag", HEADSUP_CONFIG=str(file))
    assert done.returncode == 2
    assert f"port in {file}" in done.stderr
    assert "HEADSUP_COLOUR" in done.stderr
    file.write_text('port = "many"\n')
    done = cli("lag", "--data", str(tmp_path / "none"), HEADSUP_CONFIG=str(file), HEADSUP_PORT="80")
    assert done.returncode == 1
    assert "nothing is running" in done.stderr
    file.write_text("port =\n")
    assert cli("lag", HEADSUP_CONFIG=str(file)).returncode == 2


def test_help_and_usage(cli: Cli) -> None:
    text = cli("--help").stdout
    for word in ("up", "run", "publish", "lag", "dead-letters", "resume", "doctor", "topics", "db", "schemas"):
        assert word in text
    assert "Exit codes" in text
    assert cli("frobnicate").returncode == 2
    assert cli("run", "nobody").returncode == 2
    assert cli("run", "detector").returncode == 2
    assert cli("publish", "no-such-file.jsonl").returncode == 2
    assert cli("schemas", "--check").returncode == 0


def test_doctor_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    told = cli.failing("doctor", "--data", str(tmp_path / "none"))
    [bad] = [check for check in told["checks"] if not check["ok"]]
    assert "headsup up" in bad["todo"]
    told = cli.failing("doctor", HEADSUP_DATBASE="x")
    assert "HEADSUP_DATBASE" in str(told)
    told = cli.failing("doctor", HEADSUP_PORT="x")
    assert "HEADSUP_PORT" in str(told)
    lost = {"HEADSUP_DATABASE": "postgresql://nobody@127.0.0.1:1/none", "HEADSUP_SECRET": "A" * 43 + "="}
    told = cli.failing("doctor", **lost)
    assert not next(check for check in told["checks"] if check["name"] == "database")["ok"]


def test_a_service_by_itself_says_what_it_needs(cli: Cli) -> None:
    for variables, code, word in (({}, 1, "HEADSUP_DATABASE"), ({"HEADSUP_PORT": "x"}, 2, "HEADSUP_PORT")):
        done = subprocess.run(
            [sys.executable, "-m", "services.detector"],
            cwd=cli.home,
            env=cli.environment(variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert word in done.stderr
        assert "Traceback" not in done.stderr
