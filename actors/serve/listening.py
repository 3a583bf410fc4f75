"""Address and token of a server, checked before anything heavy is loaded."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from conf.errors import UserError

TOKEN_VARIABLE = "CODESCALER_SERVE_TOKEN"
_MIN_TOKEN_CHARS = 16


def read_token(token_file: Path | None) -> str | None:
    """The token that requests must carry: from the file, else from CODESCALER_SERVE_TOKEN.

    The variable is taken out of the environment, so that no process started later inherits it.

    Raises UserError for a token that is short or could not stand in a header.
    """
    source, token = TOKEN_VARIABLE, os.environ.pop(TOKEN_VARIABLE, None)
    if token_file is not None:
        source = f"token_file={token_file}"
        try:
            token = token_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source}: cannot be read as ASCII text ({error})") from error
    if token is None:
        return None
    token = token.strip()
    if len(token) < _MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise UserError(
            f"{source}: a token has at least {_MIN_TOKEN_CHARS} printable ASCII characters "
            f"(this one has {len(token)} characters); make one with `openssl rand -hex 32`"
        )
    return token


def check_address(host: str, port: int, token: str | None) -> None:
    """Refuse an address that is not ours, is taken, or would be open to others without a token."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
    except OSError as error:
        raise UserError(f"host: {host!r} is not an address of this machine ({error})") from error
    if token is None and not ip_address(str(address[0])).is_loopback:
        raise UserError(
            f"host: {host!r} can be reached by others, so requests need a token; give "
            f"token_file=FILE or set {TOKEN_VARIABLE}, or keep host=127.0.0.1"
        )
    with socket.socket(family, kind, protocol) as probe:
        # The port of a server that has just ended is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"port: {port} on {host} is in use; end what listens there or give another port"
                ) from error
            raise UserError(f"host: cannot listen on {host}:{port} ({error.strerror})") from error
