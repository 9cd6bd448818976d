"""The reward server's socket: whoever read the address may connect, also before uvicorn is up."""

from __future__ import annotations

import socket

import pytest

from chorus.reward_server.main import _listen


def test_a_client_that_comes_before_the_server_is_up_waits_for_it() -> None:
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=5) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getpeername() == client.getsockname()


def test_a_second_server_on_the_port_is_refused_at_once() -> None:
    with _listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        _listen("127.0.0.1", listener.getsockname()[1])
