"""A small HTTP server that speaks as judges do; a test says what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Answer = object | tuple[int, object] | tuple[int, object, dict[str, str]]  # or with a status
Answering = Callable[[str, Any], Answer]  # of a path and a body, None for GET


class Server:
    """What a running server was asked, and where it is."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[tuple[str, Any]] = []
        self.tokens: list[str | None] = []
        self.most_at_once = 0


@contextmanager
def serving(answering: Answering) -> Iterator[Server]:
    """A server on a free port of the loopback interface until the block ends."""
    lock = Lock()
    at_once = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            nonlocal at_once
            with lock:
                at_once += 1
                server.most_at_once = max(server.most_at_once, at_once)
                server.asked.append((self.path, body))
                server.tokens.append(self.headers.get("Authorization"))
            found = answering(self.path, body)
            with lock:
                at_once -= 1
            status, content, headers = 200, found, {}
            if isinstance(found, tuple):
                status, content, *more = found
                headers = more[0] if more else {}
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(http.server_address[1])
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
