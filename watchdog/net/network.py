"""The network access that all probes, notifiers and remediations of a process share."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar, TypeVarTuple, Unpack

from watchdog.net.phases import PhaseTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from watchdog.net.connector import TcpConnector
    from watchdog.net.cookies import RunCookieJar
    from watchdog.net.http import HttpRequest, HttpResponse
    from watchdog.net.worker_process import FunctionWorkerProcess

NOTIFIER_HTTP_TIMEOUT_S = 10.0
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class NetworkAccess:
    """The shared network access of a process. Open it inside the event loop: `async with NetworkAccess() as network`.

    Owns the connector (name lookups, address filter, TLS contexts) and the HTTP client of the notifiers. Neither may be
    used after it is closed.
    """

    connector: TcpConnector
    """For probes: every connection goes through its address filter."""

    async def __aenter__(self) -> Self:
        from watchdog.net.connector import TcpConnector

        self.connector = TcpConnector()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connector.close()
        if "notifier_http_client" in self.__dict__:
            await self.notifier_http_client.aclose()
        if "cpu_worker" in self.__dict__:
            self.cpu_worker.kill()

    @cached_property
    def notifier_http_client(self) -> httpx.AsyncClient:
        """For notifiers: follows no redirects, ignores proxies from the environment. Responses are not limited in size,
        so they have to be streamed; they are requested uncompressed."""
        import httpx

        from watchdog.net.tls import TlsConfig

        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(verify=self.connector.get_ssl_context(TlsConfig())),
            headers={"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"},
            timeout=NOTIFIER_HTTP_TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
        )

    def preload(self) -> None:
        """Loads httpx and the certificate library, so that neither the first notification nor the first certificate
        blocks the event loop."""
        from watchdog.net.certificates import preload_certificate_library

        preload_certificate_library()
        _ = self.notifier_http_client

    @cached_property
    def cpu_worker(self) -> FunctionWorkerProcess:
        """Runs what would hold the event loop for too long."""
        from watchdog.net.worker_process import FunctionWorkerProcess

        return FunctionWorkerProcess()

    async def run_cpu_work_inline_or_in_worker(
        self, phase_timer: PhaseTimer, function: Callable[[Unpack[_Ts]], _T], *args: *_Ts, in_worker: bool
    ) -> _T:
        """What a function of a module returns for a response. `in_worker`: the response is large, so the function runs
        in the worker process, until the caller cancels it at its deadline. Raises ProbeError."""
        return await self.cpu_worker.run(phase_timer, function, *args) if in_worker else function(*args)

    async def send_http_request(
        self,
        request: HttpRequest,
        phase_timer: PhaseTimer | None = None,
        *,
        now: int = 0,
        cookies: RunCookieJar | None = None,
    ) -> HttpResponse:
        """Sends one HTTP request on a new connection and follows redirects if the request permits them. `now`: in epoch
        ms; the validity of certificates is checked against it. `cookies`: as of `watchdog.net.http.send_http_request`.
        Raises ProbeError."""
        from watchdog.net.errors import ProbeError
        from watchdog.net.http import send_http_request

        phase_timer = phase_timer or PhaseTimer()
        try:
            return await send_http_request(self.connector, request, phase_timer, now, cookies)
        except ProbeError as error:
            error.record_interrupted_phase(phase_timer)
            raise
