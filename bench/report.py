"""Figures as JSON lines on standard output, progress on standard error."""

import json
import platform
import sys
import time
from importlib.metadata import version
from statistics import median, quantiles

import psutil


class Report:
    """Writes each figure once it is known."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._said = 0.0

    def figure(self, name: str, value: float, unit: str, **detail: object) -> None:
        line = {"name": name, "value": round(value, 4 if abs(value) < 10 else 1), "unit": unit, "detail": detail}
        print(json.dumps(line, ensure_ascii=False), flush=True)

    def progress(self, what: str, often: bool = False) -> None:
        """`often`: at most once in two seconds."""
        now = time.monotonic()
        if often and now - self._said < 2.0:
            return
        self._said = now
        print(f"[{now - self._started:6.1f} s] {what}", file=sys.stderr, flush=True)


def machine(postgres: str, kafka: str) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "load_1min": round(psutil.getloadavg()[0], 2),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": postgres,
        "kafka": kafka,
        **{name: version(name) for name in ("aiokafka", "asyncpg", "pydantic", "sqlalchemy", "uvloop")},
    }


def percentile(values: list[float], percent: int) -> float:
    """With few values the nearest that there is; NaN for none."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def middle(values: list[float]) -> float:
    return float(median(values))


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
