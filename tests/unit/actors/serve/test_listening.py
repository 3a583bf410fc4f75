"""Tokens and addresses are judged before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from actors.serve.listening import TOKEN_VARIABLE, check_address, read_token
from conf.errors import UserError

pytestmark = pytest.mark.unit

TOKEN = "0123456789abcdef"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_token_of_the_environment_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    assert TOKEN_VARIABLE not in os.environ
    assert read_token(None) is None


def test_a_token_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "f" * 20)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    assert TOKEN_VARIABLE not in os.environ


@pytest.mark.parametrize("text", ["", "short", "has\nnewlines in its middle", "\u00fc" * 20])
def test_a_weak_or_unsendable_token_is_refused_and_not_shown(tmp_path: Path, text: str):
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="token_file=") as caught:
        read_token(file)
    assert not text or text not in str(caught.value)


def test_a_missing_token_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere"):
        read_token(tmp_path / "nowhere")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_the_loopback_interface_needs_no_token(host: str):
    check_address(host, free_port(), None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_needs_a_token(host: str):
    port = free_port()
    with pytest.raises(UserError, match="token_file=FILE"):
        check_address(host, port, None)
    if host == "0.0.0.0":
        check_address(host, port, TOKEN)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(host: str):
    with pytest.raises(UserError, match="host: "):
        check_address(host, free_port(), TOKEN)


def test_a_port_in_use_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port: {port} on 127.0.0.1 is in use"):
            check_address("127.0.0.1", port, None)
