"""A relay before a server, which can be shut or made slow: what lies between a job and MLflow."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Gate:
    """Relays connections to a port of this machine, as its attributes say at that moment."""

    def __init__(self, port: int | None, delay_s: float = 0.0) -> None:
        """port: of the server; None refuses everybody. delay_s: before each answer."""
        self.port = port
        self.delay_s = delay_s
        self.answers = 0
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        """Where clients come to."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Until it is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _relay(self, client: socket.socket) -> None:
        if self.port is None:
            client.close()
            return
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.port)) as far:
            asked = False
            while True:
                ready, _, _ = select.select([client, far], [], [], 0.5)
                for side in ready:
                    data = side.recv(65_536)
                    if not data:
                        return
                    if side is far and asked:
                        time.sleep(self.delay_s)
                        self.answers += 1
                    asked = side is client
                    (far if side is client else client).sendall(data)


@contextmanager
def gate(port: int | None, delay_s: float = 0.0) -> Iterator[Gate]:
    """A gate that is open for as long as the block."""
    made = Gate(port, delay_s)
    threading.Thread(target=made.serve, daemon=True).start()
    try:
        yield made
    finally:
        made.close()
