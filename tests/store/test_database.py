"""What a connection is opened with."""

from __future__ import annotations

import os
import socket

import pytest

from tests.support.store import DatabasePair


@pytest.mark.parametrize("databases", ["on_postgres"], indirect=True)
def test_a_server_that_vanishes_without_a_word_is_found_out_in_seconds(databases: DatabasePair) -> None:
    with databases.first.read_transaction() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.socket(fileno=os.dup(driver.fileno())) as ours:
            if ours.family == socket.AF_UNIX:
                pytest.skip("this PostgreSQL listens on a Unix socket alone, which cannot vanish")
            asked = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            idle = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            between = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            times = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert asked <= 15_000
    assert idle + between * times <= 15
    assert asked > 0, "0 would leave it to the system"
