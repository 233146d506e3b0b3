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
    from watchdog.net.http_send import HttpRequestSender
    from watchdog.net.proxy import RequestRouting
    from watchdog.net.worker_process import FunctionWorkerProcess

NOTIFIER_HTTP_TIMEOUT_S = 10.0
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class NetworkAccess:
    """The shared network access of a process. Open it inside the event loop: `async with NetworkAccess() as network`.

    Owns the connector (name lookups, address filter, TLS contexts), what later requests use (kept connections, access
    tokens, challenges), and the HTTP client of the notifiers. None may be used after it is closed.
    """

    connector: TcpConnector
    """For probes: every connection goes through its address filter."""
    _routing: RequestRouting | None = None

    def __init__(self, routing: RequestRouting | None = None) -> None:
        """`routing`: of all requests that do not have one of their own. A reload of the configuration replaces it."""
        self._routing = routing

    async def __aenter__(self) -> Self:
        from watchdog.net.connector import TcpConnector

        self.connector = TcpConnector()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connector.close()
        if "request_sender" in self.__dict__:
            self.request_sender.close()
        if "notifier_http_client" in self.__dict__:
            await self.notifier_http_client.aclose()
        if "cpu_worker" in self.__dict__:
            self.cpu_worker.kill()

    @property
    def routing(self) -> RequestRouting:
        """Through which proxy requests are sent, and which authorities are trusted."""
        if self._routing is None:
            from watchdog.net.proxy import RequestRouting

            self._routing = RequestRouting()
        return self._routing

    @routing.setter
    def routing(self, routing: RequestRouting) -> None:
        self._routing = routing

    def route_by(self, choose_routing: Callable[[RequestRouting], RequestRouting] | None) -> NetworkAccess:
        """The same network access with a routing that depends on that of the process. None: with the same routing."""
        return self if choose_routing is None else _RoutedNetworkAccess(self, choose_routing)

    @cached_property
    def notifier_http_client(self) -> httpx.AsyncClient:
        """For notifiers: follows no redirects, ignores proxies from the environment. Responses are not limited in size,
        so they have to be streamed; they are requested uncompressed."""
        import httpx

        from watchdog.net.httpx_transport import ExchangeTransport

        return httpx.AsyncClient(
            transport=ExchangeTransport(self.connector, lambda: self.routing),
            headers={"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"},
            timeout=NOTIFIER_HTTP_TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
        )

    @cached_property
    def request_sender(self) -> HttpRequestSender:
        """Sends requests whose responses are read as a whole."""
        from watchdog.net.http_send import HttpRequestSender

        return HttpRequestSender(self.connector)

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

    def mask_tokens(self, text: str) -> str:
        """The text without the access tokens that this process has obtained."""
        return self.request_sender.tokens.mask(text) if "request_sender" in self.__dict__ else text

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
        """Sends one HTTP request and follows redirects if the request permits them. `now`: in epoch
        ms; the validity of certificates is checked against it. `cookies`: as of `HttpRequestSender.send`.
        Raises ProbeError."""
        from watchdog.net.errors import ProbeError

        phase_timer = phase_timer or PhaseTimer()
        try:
            return await self.request_sender.send(request, phase_timer, now, self.routing, cookies=cookies)
        except ProbeError as error:
            error.record_interrupted_phase(phase_timer)
            raise


class _RoutedNetworkAccess(NetworkAccess):
    """The network access of a process, with another routing."""

    def __init__(self, network: NetworkAccess, choose_routing: Callable[[RequestRouting], RequestRouting]) -> None:
        super().__init__(choose_routing(network.routing))
        self._network, self.connector = network, network.connector

    @property
    def request_sender(self) -> HttpRequestSender:
        return self._network.request_sender

    @property
    def cpu_worker(self) -> FunctionWorkerProcess:
        return self._network.cpu_worker

    def mask_tokens(self, text: str) -> str:
        return self._network.mask_tokens(text)
