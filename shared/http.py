"""The web side that all services share: health, metrics, bounded bodies, errors as problem details (RFC 9457).

Routes of the services live in their `api.py`; one process serves those of all its services.
"""

from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from shared.access import Access
from shared.clock import Clock
from shared.errors import AskPerson, HeadsupError, Reject, Retry
from shared.events.stores import Role
from shared.problems import Problem
from shared.telemetry import Metrics
from shared.virtual import Driver
from shared.worker import Worker

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 2
LONGEST_ADVANCE_SECONDS = 366 * 86_400


async def bounded_body(request: Request, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes; one that is longer is not read to its end."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "Send the body without a content encoding.")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Problem(400, f"The body is larger than {limit} bytes: send fewer events at a time.")
        chunks.append(chunk)
    return b"".join(chunks)


def create_app(workers: Sequence[Worker], metrics: Metrics, routers: Sequence[APIRouter]) -> FastAPI:
    """The process's web application: `/livez`, `/readyz`, `/metrics`, `/docs`, and the services' routes."""
    app = FastAPI(title="Headsup", description="Tells customers about trouble with their order before they ask.")
    _tell_errors(app)

    @app.get("/livez", tags=["platform"])
    async def livez() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["platform"])
    async def readyz() -> Response:
        """200 when every worker is at work; else 503 with the reasons."""
        reasons = {worker.settings.schema: worker.ready for worker in workers if worker.ready}
        if reasons:
            return JSONResponse({"status": "not ready", "reasons": reasons}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", tags=["platform"])
    async def metrics_page() -> Response:
        """Prometheus text."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for router in routers:
        app.include_router(router)
    return app


class Advance(BaseModel):
    seconds: float = Field(gt=0, le=LONGEST_ADVANCE_SECONDS)


def clock_routes(clock: Clock, driver: Driver | None, access: Access) -> APIRouter:
    """`GET /v1/clock`, and with a virtual clock `POST /v1/clock/advance`."""
    router = APIRouter(prefix="/v1/clock", tags=["clock"], dependencies=[Depends(access.needs(Role.READ))])

    @router.get("")
    async def now() -> dict[str, Any]:
        """What time Headsup believes it is (UTC)."""
        return {"now": clock.now(), "virtual": driver is not None, "speed": driver.speed if driver else 1.0}

    if driver is not None:

        @router.post("/advance", dependencies=[Depends(access.needs(Role.ADMIN))])
        async def advance(by: Advance) -> dict[str, Any]:
            """Let virtual time pass, with everything that becomes due on the way, and return when all of it is done."""
            return {"now": await driver.advance(timedelta(seconds=by.seconds))}

    return router


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return _problem(error.status, error.detail, **error.members)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = [{"field": ".".join(map(str, e["loc"])), "reason": e["msg"]} for e in error.errors()]
        return _problem(422, "The request is not as it should be; `errors` says where.", errors=errors)

    @app.exception_handler(HeadsupError)
    async def told(request: Request, error: HeadsupError) -> Response:
        log.warning("request_failed", path=_route(request), reason=error.reason)
        if isinstance(error, AskPerson):
            return _problem(409, error.reason)
        if isinstance(error, Reject):
            errors = [{"field": error.field, "reason": error.reason}] if error.field else []
            return _problem(422, error.reason, errors=errors)
        status = 503 if isinstance(error, Retry) else 500
        return _problem(status, error.reason, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        log.error("request_crashed", path=_route(request), exc_info=error)
        return _problem(500, "Something broke on our side; the log says what.")


def _route(request: Request) -> str:
    """The route as it is written, `/v1/hooks/{name}/{secret}/inbound`: a path may hold a secret, and logs must not."""
    return getattr(request.scope.get("route"), "path", "")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None, **members: Any) -> Response:
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="headsup"'
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
