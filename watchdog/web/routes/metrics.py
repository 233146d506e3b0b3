"""The route of /metrics, which Prometheus scrapes with an API key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.metrics import MetricsSnapshot, encode_metrics_body_and_content_type
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.store.read.metrics import SharedMetrics, load_shared_metrics
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, STORE_READ_QUERY_TIMEOUT_S
from watchdog.web.compression import compress_response_body_if_accepted
from watchdog.web.readiness import ReadinessChecker, share_query_in_progress
from watchdog.web.routes.operators import OperatorRouteContext
from watchdog.web.templating import NO_STORE_HEADERS


def create_metrics_router(
    context: OperatorRouteContext,
    readiness_check: ReadinessChecker,
    collect_process_metrics: Callable[[], WatchdogActivityMetrics],
) -> APIRouter:
    router = APIRouter(dependencies=[Depends(context.authenticate)])
    load_metrics = share_query_in_progress(lambda: context.run_read_query(load_shared_metrics))

    async def load_shared_metrics_if_readable() -> SharedMetrics | None:
        try:
            async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S):
                return await load_metrics()
        except STORE_READ_QUERY_ERRORS:
            return None

    @router.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        (not_ready_reason, _), shared = await asyncio.gather(
            readiness_check.find_not_ready_reason_and_own_findings(), load_shared_metrics_if_readable()
        )
        snapshot = MetricsSnapshot(collect_process_metrics(), shared, is_ready=not not_ready_reason)
        return await asyncio.to_thread(_build_metrics_response, request, snapshot)

    return router


def _build_metrics_response(request: Request, snapshot: MetricsSnapshot) -> Response:
    """In a thread: thousands of probes take a while."""
    body, content_type = encode_metrics_body_and_content_type(snapshot, request.headers.get("accept", ""))
    content, encoding_headers = compress_response_body_if_accepted(request, body)
    return Response(content, media_type=content_type, headers=NO_STORE_HEADERS | encoding_headers)
