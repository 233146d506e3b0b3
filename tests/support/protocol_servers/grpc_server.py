"""A gRPC server with the health servicer of gRPC's own package: PORT [PEM file with certificate and key].

Services: "" is SERVING, `down` NOT_SERVING, `starting` UNKNOWN; `guarded` requires the metadata `authorization`, and
`abort:STATUS` fails with that status.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class SampleHealthServicer(health.HealthServicer):  # type: ignore[misc] # the package ships no types
    """The servicer of the package, with a few services more."""

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method
        metadata = dict(context.invocation_metadata())
        if request.service == "guarded" and metadata.get("authorization") != "Bearer of-the-orders-team":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"no access with {metadata.get('authorization')}")
        if request.service.startswith("abort:"):
            context.abort(grpc.StatusCode[request.service.removeprefix("abort:")], "as requested\nby the test")
        return super().Check(request, context)


def main(port: int, pem_file: str = "") -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = SampleHealthServicer()
    servicer.set("down", health_pb2.HealthCheckResponse.NOT_SERVING)
    servicer.set("starting", health_pb2.HealthCheckResponse.UNKNOWN)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if pem_file:
        pem = Path(pem_file).read_bytes()
        server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(pem, pem)]))
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
