"""The batch worker that every service runs: see worker.py for its guarantees, handler.py for what it needs."""

from shared.worker.handler import Background, Handler, WorkerSettings
from shared.worker.worker import Worker

__all__ = ["Background", "Handler", "Worker", "WorkerSettings"]
