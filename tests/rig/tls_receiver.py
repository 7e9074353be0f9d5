"""A TLS receiver on blocking sockets: unlike asyncio's servers, and like most others, it tells the
other side by an alert why it ends a handshake."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class TlsReceiver:
    """Answers 200 to each request; keeps who asked, and over which connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        """Of the next connections."""
        self.asked: list[tuple[int, str | None]] = []
        """(connection, the client certificate's common name) of each request."""
        self.heads: list[bytes] = []
        """Request line and headers of each."""
        self._connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.url = f"https://127.0.0.1:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self._connections += 1
            threading.Thread(
                target=self._serve, args=(accepted, self._connections), daemon=True
            ).start()

    def _serve(self, accepted: socket.socket, number: int) -> None:
        with self.context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        ) as connection:
            with contextlib.suppress(OSError):
                connection.do_handshake()
                self._answer(connection, number)
            # A close over unread bytes would be a reset, which overtakes the alert.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                while socket.socket.recv(connection, 65_536):
                    pass

    def _answer(self, connection: ssl.SSLSocket, number: int) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                received = connection.recv(65_536)
                if not received:
                    return
                pending += received
            head, _, pending = pending.partition(b"\r\n\r\n")
            (length,) = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            while len(pending) < length:
                pending += connection.recv(65_536)
            pending = pending[length:]
            self.heads.append(head)
            self.asked.append((number, _common_name(connection.getpeercert())))
            connection.sendall(_OK)

    def stop(self) -> None:
        """Accept no more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def _common_name(certificate: Any) -> str | None:
    if not certificate:
        return None
    return str(dict(part for (part,) in certificate["subject"])["commonName"])
