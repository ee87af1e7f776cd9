"""What stands under deploy/ and around it: compose file, image, alerts, dashboard. `deploy/try-compose.sh` runs it."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.cli import SERVICES
from shared.settings import Settings
from shared.telemetry import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"

OWN = {"prepare": 0, "detector": 8081, "composer": 8082, "dispatcher": 8083, "followup": 8084}
"""Our containers and the ports that they serve."""

# The image and the compose file.


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def test_each_service_has_its_command_its_port_and_a_health_check(compose: Any) -> None:
    for name, port in OWN.items():
        if not port:
            continue
        service = compose["services"][name]
        assert service["command"] == ["run", name]
        assert service["image"] == compose["services"]["prepare"]["image"]
        assert service["pull_policy"] == "never"
        assert service["environment"]["HEADSUP_PORT"] == port
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert "/readyz" in service["healthcheck"]["test"][-1]
        assert service["depends_on"]["prepare"] == {"condition": "service_completed_successfully"}
    assert compose["services"]["prepare"]["build"] == "."
    assert {one.name for one in SERVICES} <= OWN.keys()


def test_every_long_running_container_has_a_health_check_and_comes_back(compose: Any) -> None:
    for name, service in compose["services"].items():
        if name != "prepare":
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert service["restart"] == "unless-stopped", name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name


def test_our_containers_may_write_to_tmp_only(compose: Any) -> None:
    for name in OWN:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108
        assert service["cap_drop"] == ["ALL"]
        assert "volumes" not in service


def test_only_this_machine_reaches_the_ports(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_every_headsup_variable_is_a_setting(compose: Any) -> None:
    known = {f"HEADSUP_{name.upper()}" for name in Settings.model_fields}
    for name in OWN:
        assert set(compose["services"][name]["environment"]) <= known


SECRET = re.compile(r"SECRET|PASSWORD|API_KEY|TOKEN|DATABASE", re.IGNORECASE)
REQUIRED = re.compile(r"\$\{\w+:\?[^}]+\}")


def values(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar below a node with the name that it stands under."""
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from values(inner, str(key))
    elif isinstance(node, list):
        for inner in node:
            yield from values(inner, name)
    else:
        yield name, str(node)


def test_secrets_are_asked_for_and_never_inside(compose: Any) -> None:
    secret = {(name, value) for name, value in values(compose["services"]) if SECRET.search(name)}
    assert {name for name, _ in secret} >= {
        "HEADSUP_SECRET",
        "HEADSUP_API_KEY",
        "HEADSUP_DATABASE",
        "POSTGRES_PASSWORD",
    }
    for name, value in secret:
        assert REQUIRED.search(value), name
    for _, value in values(compose):
        credentials = re.search(r"://[^/@]*:([^@/]*)@", value)
        assert credentials is None or REQUIRED.fullmatch(credentials[1])


def test_the_documented_command_makes_every_variable_once(compose: Any, tmp_path: Path) -> None:
    made = tmp_path / "env"
    command = [str(DEPLOY / "make-env.sh"), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    assert made.stat().st_mode & 0o777 == 0o600
    before = made.read_text("utf-8")
    lines = [line for line in before.splitlines() if not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    asked = {name for _, value in values(compose) for name in re.findall(r"\$\{(\w+)", value)}
    assert given.keys() == asked
    settings = Settings.model_validate(
        {"secret": given["HEADSUP_SECRET"], "api_key": given["HEADSUP_API_KEY"], "bus": "kafka://kafka:9092"}
    )
    assert settings.api_key_hash
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert made.read_text("utf-8") == before


def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode
    ):
        return  # the tests above read it as YAML
    made = tmp_path / "env"
    subprocess.run([str(DEPLOY / "make-env.sh"), str(made)], check=True, capture_output=True)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HEADSUP_")}

    def config(env_file: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", "--profile", "observe", "--env-file", env_file, "config", "--quiet"]
        return subprocess.run(command, cwd=ROOT, env=outside, check=False, capture_output=True, text=True)

    assert config(str(made)).returncode == 0, config(str(made)).stderr
    assert "make-env.sh" in config(os.devnull).stderr


def test_the_image_is_made_from_locked_versions_and_run_by_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    stages = [i for i, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(stages) > 1
    last = "\n".join(lines[stages[-1] :])
    user = re.search(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert user is not None
    assert "0" not in user.groups()
    assert "pip install" not in last
    for line in lines:
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-index" in line
    assert not any("syntax=" in line for line in lines)


def test_the_image_gets_all_that_is_shipped_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    shipped = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    first, *rest = [
        line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and not line.startswith("#")
    ]
    allowed = {line[1:] for line in rest if line.startswith("!")}
    copied = {
        source
        for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert first == "*"
    assert allowed == copied
    assert shipped <= allowed


def test_the_try_out_makes_the_base_images_that_are_named(compose: Any) -> None:
    script = (DEPLOY / "try-compose.sh").read_text("utf-8")
    bases = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    bases |= {compose["services"][name]["image"] for name in ("kafka", "postgres", "prometheus")}
    assert {base for base in bases if f"{base} >" not in script} == set()
    tested = re.search(r"<kafka\.version>(.+?)</", (DEPLOY / "kafka-local/pom.xml").read_text("utf-8"))
    assert tested is not None
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{tested[1]}"


# Alerts and the dashboard.


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.requires("promtool")
def test_promtool_takes_the_alerts_and_the_configuration() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


@pytest.mark.requires("promtool")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", "alerts_test.yml")


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_every_alert_says_what_to_do_and_is_tried(alerts: list[dict[str, Any]]) -> None:
    tried = (PROMETHEUS / "alerts_test.yml").read_text("utf-8")
    for alert in alerts:
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook"}
        assert len(alert["annotations"]["runbook"]) > 40
        assert alert["alert"] in tried


def test_every_service_is_scraped_and_missed_when_it_is_silent(alerts: list[dict[str, Any]]) -> None:
    configured = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    [job] = configured["scrape_configs"]
    [absent] = [alert["expr"] for alert in alerts if alert["alert"] == "HeadsupMetricsAbsent"]
    services = {name: port for name, port in OWN.items() if port}
    assert job["static_configs"][0]["targets"] == [f"{name}:{port}" for name, port in services.items()]
    assert re.findall(r'service="(\w+)"', absent) == list(services)


def families() -> dict[str, set[str]]:
    """Every sample's name that may be on a /metrics page, with its labels."""
    found: dict[str, set[str]] = {}
    histograms: dict[str, set[str]] = {}
    registry = CollectorRegistry()
    Metrics(registry=registry)
    for collector in registry._collector_to_names:
        [family] = collector.describe() if hasattr(collector, "describe") else []
        labels = set(getattr(collector, "_labelnames", ()))
        if family.type == "histogram":
            histograms[family.name] = labels
        else:
            found[family.name + ("_total" if family.type == "counter" else "")] = labels
    for name, labels in histograms.items():
        found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    return found


def unknown(expression: str) -> list[str]:
    """What an expression names that no /metrics page has: metrics, and labels that select."""
    known = families()
    wrong = []
    for name, selectors in re.findall(r"\b(headsup_\w+)(?:\{([^}]*)\})?", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        if name not in known:
            wrong.append(name)
        elif labels - known[name]:
            wrong.append(f"{name}{sorted(labels - known[name])}")
    return wrong


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_alerts_name_only_metrics_that_there_are(alerts: list[dict[str, Any]]) -> None:
    assert [wrong for alert in alerts for wrong in unknown(alert["expr"])] == []
    assert unknown('headsup_lag_second > 1 or headsup_lag_seconds{servce="x"}') == [
        "headsup_lag_second",
        "headsup_lag_seconds['servce']",
    ]


def test_the_dashboard_names_only_metrics_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "headsup.json").read_text("utf-8"))
    named = expressions(dashboard["panels"])
    assert len(named) > 20
    assert [wrong for expression in named for wrong in unknown(expression)] == []


def test_the_dashboard_is_laid_out_without_overlaps_and_finds_its_data() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "headsup.json").read_text("utf-8"))
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    uid = source["datasources"][0]["uid"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == uid
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
