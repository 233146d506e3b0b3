"""Responses over 64 KiB are judged in the worker process, with the verdict that smaller ones get in the event loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import replace

import brotli  # type: ignore[import-untyped] # it ships no types
import pytest
import zstandard

from tests.support.polling import wait_until_async
from tests.support.probe_runs import EMPTY_MASK, IgnoringLagMonitor, run_probe
from tests.support.scripted_servers import ConnectionHandler, http_response, running_server, send_parts
from tests.support.worker_functions import get_pid_of_judgement
from watchdog.domain.model import ClaimedSlot, Observation, Outcome, ResultToRecord
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError
from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP
from watchdog.net.content_encoding import ContentEncodingDecoder
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.received_body import BoundedBodyCollector
from watchdog.probes import HttpProbe
from watchdog.probes.expectations import build_observation_from_error
from watchdog.probes.http import build_http_response_observation
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.runner import RetryingProbeRunner

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}
JSON = {"Content_Type": "application/json"}
HANGS = "body.map(x, body.map(y, y)).size() > 0"
"""Takes seconds for a list of 9,000 entries, within the engine's own limit of iterations."""
LONG_LIST = b"[" + b"1," * 9_000 + b"1]"


def padded(start: bytes, end: bytes, size: int) -> bytes:
    """A text of `size` bytes."""
    return start + b"x" * (size - len(start) - len(end)) + end


def probe(url: str = "http://127.0.0.1:1/", **fields: object) -> HttpProbe:
    http = {"url": url, "max_body": fields.pop("max_body", "256KiB")}
    return HttpProbe.model_validate({"name": "API", "http": http, **fields})


async def judge(watched: HttpProbe, response: HttpResponse, network: NetworkAccess) -> tuple[Observation, bool]:
    """The observation, and whether the worker made it."""
    criteria, timer = watched._response_criteria, PhaseTimer()
    try:
        observation = await network.run_cpu_work_inline_or_in_worker(
            timer,
            build_http_response_observation,
            response,
            criteria,
            0,
            in_worker=response.needs_worker_process(loops=criteria.has_looping_expression),
        )
    except ProbeError as error:
        observation = build_observation_from_error(error, timer)
    return replace(observation, phases={}), "judge" in timer.phase_durations_ms


async def fetch(network: NetworkAccess, raw_response: bytes, max_body_bytes: int = 256 << 10) -> HttpResponse:
    async with running_server(send_parts(raw_response)) as server:
        response = await network.send_http_request(HttpRequest(server.url_of(), max_body_bytes=max_body_bytes))
        return replace(response, elapsed_ms=1.0, peer_address="", url="")


SIZES = (MAX_BODY_BYTES_IN_EVENT_LOOP - 1, MAX_BODY_BYTES_IN_EVENT_LOOP, MAX_BODY_BYTES_IN_EVENT_LOOP + 1)
BODIES: dict[str, Callable[[int], bytes]] = {
    "a good answer": lambda size: padded(b'{"ok": true, "pad": "', b'"}', size),
    "a bad answer": lambda size: padded(b'{"ok": false, "pad": "', b'"}', size),
    "truncated JSON": lambda size: padded(b'{"ok": true, "pad": "', b"", size),
    "invalid JSON": lambda size: padded(b'{"ok": maybe, "pad": "', b'"}', size),
    "a byte-order mark": lambda size: padded(b'\xef\xbb\xbf{"ok": true, "pad": "', b'"}', size),
    "nested too deeply": lambda size: b'{"ok": true, "pad": '.ljust(size, b"["),
    "text": lambda size: padded(b"<p>welcome ", b"goodbye", size),
    "no text": lambda size: bytes(range(256)) * (size // 256 + 1),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_verdict_does_not_depend_on_where_a_body_is_judged(
    encoding: str, body: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expectations = (["body.ok"], ["body.contains('welcome')"], ["status == 200"], ["status == 201", "body.pad == ''"])

    async def script() -> None:
        async with NetworkAccess() as network:
            for size in SIZES:
                raw = http_response(ENCODINGS[encoding](body(size)), Content_Encoding=encoding)
                for expect in expectations:
                    watched = probe(expect=expect)
                    there, by_worker = await judge(watched, await fetch(network, raw), network)
                    assert by_worker == (len(body(size)) > MAX_BODY_BYTES_IN_EVENT_LOOP)
                    with monkeypatch.context() as patch:
                        patch.setattr("watchdog.net.received_body.MAX_BODY_BYTES_IN_EVENT_LOOP", 1 << 30)
                        here, by_worker = await judge(watched, await fetch(network, raw), network)
                    assert not by_worker
                    assert there == here

    asyncio.run(script())


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "identity"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "too long", "unknown"])
def test_the_same_faults_are_found_in_the_worker(encoding: str, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"ok": True, "pad": os.urandom(100_000).hex()}).encode()
    encoded = ENCODINGS[encoding](body)
    if damage == "cut":
        encoded = encoded[:-3]
    elif damage == "garbage":
        encoded = encoded[:90_000] + b"\xff" * 4_000 + encoded[94_000:]
    raw = http_response(encoded, Content_Encoding="compress" if damage == "unknown" else encoding)
    max_body_bytes = 150_000 if damage == "too long" else 1 << 20
    watched = probe(expect=["body.ok"])

    async def script() -> None:
        async with NetworkAccess() as network:
            there, by_worker = await judge(watched, await fetch(network, raw, max_body_bytes), network)
            assert by_worker == (damage != "unknown")
            monkeypatch.setattr("watchdog.net.received_body.MAX_BODY_BYTES_IN_EVENT_LOOP", 1 << 30)
            try:
                here, _ = await judge(watched, await fetch(network, raw, max_body_bytes), network)
            except ProbeError as error:
                here = replace(build_observation_from_error(error, PhaseTimer()), phases={})
            assert (there.outcome, there.reason, there.message) == (here.outcome, here.reason, here.message)
            assert there.outcome is not Outcome.PASS or damage == "garbage", "some encodings have no checksum"

    asyncio.run(script())


def test_a_compressed_body_that_was_not_read_to_its_end_is_too_long() -> None:
    body = BoundedBodyCollector("gzip", 1 << 20)
    body.feed(gzip.compress(os.urandom(200_000))[:150_000])
    body.mark_body_too_long()
    body.finish_and_require_complete_body()
    assert pickle.loads(pickle.dumps(body)).decompress() == body.decompress()
    assert body.problem is not None
    assert body.problem.reason == "body.decoded_too_large"


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "identity"])
def test_a_large_body_is_decoded_in_short_parts(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part_sizes: list[int] = []
    decode = ContentEncodingDecoder.decode

    def decode_recorded(self: ContentEncodingDecoder, data: bytes) -> bytes | bytearray:
        part_sizes.append(len(data))
        return decode(self, data)

    text = os.urandom(300_000)
    body = BoundedBodyCollector(encoding, 1 << 20)
    body.feed(ENCODINGS[encoding](text))
    body.finish_and_require_complete_body()
    monkeypatch.setattr(ContentEncodingDecoder, "decode", decode_recorded)
    assert body.decompress() == text
    assert sum(part_sizes) >= len(text)
    assert max(part_sizes) <= 16 << 10


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_expands_beyond_64_kib_is_not_decoded_in_the_event_loop(encoding: str) -> None:
    body = BoundedBodyCollector(encoding, 16 << 20)
    body.feed(ENCODINGS[encoding](b"\0" * (16 << 20)))
    body.finish_and_require_complete_body()
    assert body.is_large
    assert len(body.decompressed_body_start) <= MAX_BODY_BYTES_IN_EVENT_LOOP + 1
    assert len(body.decompress()) == 16 << 20


@pytest.mark.parametrize(
    ("size", "expect", "in_worker"),
    [
        (1_000, "body.ok", False),
        (MAX_BODY_BYTES_IN_EVENT_LOOP, "body.ok", False),
        (MAX_BODY_BYTES_IN_EVENT_LOOP + 1, "body.ok", True),
        (MAX_BODY_BYTES_IN_EVENT_LOOP, "body.items.all(x, x == 1)", False),
    ],
)
def test_only_a_large_body_starts_a_process(size: int, expect: str, in_worker: bool) -> None:
    body = padded(b'{"ok": true, "items": [1, 1], "pad": "', b'"}', size)

    async def script() -> None:
        async with NetworkAccess() as network:
            response = await fetch(network, http_response(body))
            pid = await network.run_cpu_work_inline_or_in_worker(
                PhaseTimer(), get_pid_of_judgement, response, in_worker=response.needs_worker_process()
            )
            assert (pid != os.getpid()) == in_worker
            assert ("cpu_worker" in network.__dict__) == in_worker

    asyncio.run(script())


@pytest.mark.parametrize(
    "expression", ["body.all(x, x == 1)", "body.map(x, x + 1).size() > 1", "body.exists(x, x == 2)"]
)
def test_a_loop_over_many_elements_runs_in_the_worker_however_small_the_body(expression: str) -> None:
    async def script() -> None:
        async with NetworkAccess() as network:
            few = await fetch(network, http_response(b"[" + b"1," * 400 + b"1]"))
            many = await fetch(network, http_response(b"[" + b"1," * 600 + b"1]"))
            assert [(await judge(probe(expect=[expression]), response, network))[1] for response in (few, many)] == [
                False,
                True,
            ]
            assert not (await judge(probe(expect=["body[0] == 1"]), many, network))[1], "it has no loop"

    asyncio.run(script())


async def run_together(*watched: HttpProbe) -> list[ResultToRecord]:
    """Runs of probes that share the network of one process, each started when the one before it is judged or queued."""
    async with NetworkAccess() as network, IgnoringLagMonitor() as lag:
        runner, now = RetryingProbeRunner(network, EMPTY_MASK, read_wall_clock_ms, lag), read_wall_clock_ms()
        runs = []
        for each in watched:
            runs.append(asyncio.create_task(runner.run(each, ClaimedSlot(1, now, "local", None), {})))
            await wait_until_async(lambda: "cpu_worker" in network.__dict__ and network.cpu_worker._turn.locked())
        return await asyncio.gather(*runs)


def run_against(handler: ConnectionHandler, *settings: dict[str, object]) -> list[ResultToRecord]:
    async def script() -> list[ResultToRecord]:
        async with running_server(handler) as server:
            return await run_together(*(probe(server.url_of(), **fields) for fields in settings))

    return asyncio.run(script())


def test_a_judgement_that_takes_too_long_ends_at_the_deadline_and_a_successor_judges_the_next_one() -> None:
    slow, quick = run_against(
        send_parts(http_response(LONG_LIST, **JSON)),
        {"expect": [HANGS], "timeout": "2s"},
        {"expect": ["body.exists(x, x == 1)"], "timeout": "30s"},
    )
    assert (slow.result.outcome, slow.result.reason) == (Outcome.ERROR, "watchdog.response_not_judged")
    assert slow.result.message == "timed out after 2\N{NO-BREAK SPACE}s while evaluating a large response"
    assert slow.evidence.facts["received"] == f"{len(LONG_LIST)} of {len(LONG_LIST)} bytes"
    assert quick.result.outcome is Outcome.PASS
    assert "judge" in quick.result.phases


def test_a_deadline_that_passes_in_the_queue_is_an_error() -> None:
    _, queued = run_against(
        send_parts(http_response(LONG_LIST, **JSON)),
        {"expect": [HANGS], "timeout": "3500ms"},
        {"expect": ["body.exists(x, x == 2)"], "timeout": "900ms"},
    )
    assert (queued.result.outcome, queued.result.reason) == (Outcome.ERROR, "watchdog.response_not_judged")
    assert (
        queued.result.message
        == "timed out after 900\N{NO-BREAK SPACE}ms while waiting for other large responses to be evaluated"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 100_000 + b"1]",
        json.dumps({f"key {i} " + "x" * 500: "y" * 500 for i in range(2_000)}).encode(),
        json.dumps({"error": "e" * 1_000_000}).encode(),
    ],
    ids=["many", "wide", "long"],
)
@pytest.mark.parametrize("expect", ["body.missing.field == 1", "body == 1", "body.all(x, x == 1)", "body.error == ''"])
def test_what_comes_back_is_small(body: bytes, expect: str) -> None:
    async def script() -> None:
        async with NetworkAccess() as network:
            response = await fetch(network, http_response(body), 4 << 20)
            observation, by_worker = await judge(probe(expect=[expect], prefer=[expect + " "]), response, network)
            assert by_worker
            assert len(pickle.dumps(observation)) < 64 << 10

    asyncio.run(script())


def test_a_single_run_leaves_no_process_behind() -> None:
    body = padded(b'{"ok": true, "pad": "', b'"}', 100_000)

    async def script() -> ResultToRecord:
        async with running_server(send_parts(http_response(body))) as server:
            return await run_probe(probe(server.url_of(), expect=["body.ok"]))

    assert asyncio.run(script()).result.outcome is Outcome.PASS
