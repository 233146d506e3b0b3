"""Options of connections."""

from __future__ import annotations

import os
import socket

import pytest

from tests.support.store import DatabasePair


@pytest.mark.parametrize("databases", ["on_postgres"], indirect=True)
def test_a_server_that_vanishes_is_detected_in_seconds(databases: DatabasePair) -> None:
    with databases.first.read_transaction() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.socket(fileno=os.dup(driver.fileno())) as own_socket:
            if own_socket.family == socket.AF_UNIX:
                pytest.skip("this PostgreSQL listens on a Unix socket only, which cannot vanish")
            user_timeout_ms = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            idle_s = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            interval_s = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            count = own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert user_timeout_ms <= 15_000
    assert idle_s + interval_s * count <= 15
    assert user_timeout_ms > 0, "0 means the system's default"
