"""Programs that some tests run: without one they are left out with a plain reason, or fail when CI=true."""

import os
import shutil

import pytest

PACKAGES = {
    "java": "a Java runtime, 17 or later (Debian: default-jre-headless)",
    "mvn": "Maven (Debian: maven)",
    "kcat": "kcat (Debian: kcat)",
    "curl": "curl (Debian: curl)",
    "node": "Node.js (Debian: nodejs)",
    "npm": "npm (Debian: npm)",
    "bearerbox": "the Kannel gateway (Debian: kannel)",
    "smsbox": "the Kannel gateway (Debian: kannel)",
    "promtool": "promtool (Debian: prometheus)",
}


def in_ci() -> bool:
    """Whether nothing may be left out."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(*tools: str) -> list[str]:
    """Those of `tools` that are not on PATH, as words that say what to install."""
    return [PACKAGES.get(tool, tool) for tool in tools if shutil.which(tool) is None]


def require(*tools: str) -> None:
    """Return when all `tools` are here; else skip the running test, or fail it when CI=true."""
    if absent := missing(*tools):
        reason = "needs " + " and ".join(absent)
        if in_ci():
            pytest.fail(f"{reason}; with CI=true nothing may be left out", pytrace=False)
        pytest.skip(reason)
