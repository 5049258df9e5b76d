"""A process that has the heavy packages imported and forks workers out of itself.

`python warm_server.py SOCKET HEAD_PID MODULE...` imports the modules, listens on the Unix socket
and turns each request of warm_client.py into a child of its own that runs the program asked for,
with the client's arguments, environment, folder and standard streams. Importing torch,
transformers, peft and deepspeed takes 6 s of CPU a process; a fork of them takes 30 ms.

It ends with the head. Run as a file, alone: nothing of raylora may be loaded here, since each job
brings a copy of the package of its own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

LENGTH = 4
"""Bytes before an order that say how long it is, big endian."""
STREAMS = 3
"""stdin, stdout, stderr."""


@dataclass(frozen=True)
class Order:
    """What a client asks to run."""

    argv: list[str]
    """As after `python`: FILE ARGUMENTS... or -m MODULE ARGUMENTS..."""
    environment: dict[str, str]
    folder: str
    streams: list[int]


class Server:
    """Forks a child for each connection, and ends a child whose client is gone."""

    def __init__(self, path: Path, head: int) -> None:
        """Listen at `path`, which nobody else may open; `head` is the process to end with."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = path.with_name(f"{path.name}.new")
        self._listener.bind(str(draft))
        draft.chmod(0o600)
        self._listener.listen(64)
        draft.rename(path)  # whoever finds the socket finds it listening
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(os.pidfd_open(head), selectors.EVENT_READ, self._end)
        self._open = True
        self._order: Order | None = None

    def serve(self) -> Order | None:
        """Wait for orders. Returns one in the child that is to run it, None when the head ends."""
        while self._open:
            for key, _ in self._selector.select():
                # What one of these did may have ended another, such as a client and its child.
                if key.fd in self._selector.get_map():
                    key.data()
        self._selector.close()
        self._listener.close()
        return self._order

    def _end(self) -> None:
        self._open = False

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        order = _read(client)
        if order is None:
            client.close()
            return
        child = os.fork()
        if child == 0:
            # Ray ends a worker's whole process group.
            os.setsid()
            client.close()
            self._open, self._order = False, order
            return
        for stream in order.streams:
            os.close(stream)
        self._watch(client, child)
        _write(client, child)

    def _watch(self, client: socket.socket, child: int) -> None:
        """Tell the client how its child ends; end the child when the client ends first."""
        ended = os.pidfd_open(child)

        def report() -> None:
            _, status = os.waitpid(child, 0)
            self._selector.unregister(ended)
            os.close(ended)
            if client.fileno() >= 0:
                self._selector.unregister(client)
                _write(client, os.waitstatus_to_exitcode(status))
                client.close()

        def abandon() -> None:
            self._selector.unregister(client)
            client.close()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(ended, signal.SIGKILL)

        self._selector.register(ended, selectors.EVENT_READ, report)
        self._selector.register(client, selectors.EVENT_READ, abandon)


def main(argv: list[str]) -> None:
    """Serve until the head ends; in a forked child, run what was ordered instead."""
    path, head, *modules = argv
    sys.path.pop(0)  # this file's folder: the names in it are not for import
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    if others := len(os.listdir("/proc/self/task")) - 1:
        sys.exit(f"imports have started {others} threads, so that forking is not safe")
    # What is frozen is never touched by the collector, so its pages stay shared with children.
    gc.collect()
    gc.freeze()
    order = Server(Path(path), int(head)).serve()
    if order is not None:
        _end(_become(order))


def _read(client: socket.socket) -> Order | None:
    """The order of a client; None from one that ended before it was complete."""
    head, streams, *_ = socket.recv_fds(client, LENGTH, STREAMS)
    content = b""
    while len(head) == LENGTH and len(content) < int.from_bytes(head, "big"):
        part = client.recv(1 << 20)
        if not part:
            break
        content += part
    if len(head) < LENGTH or len(content) < int.from_bytes(head, "big"):
        for stream in streams:
            os.close(stream)
        return None
    return Order(**json.loads(content), streams=list(streams))


def _write(client: socket.socket, number: int) -> None:
    """The pid of a child, then its exit code; negative for a signal. A client may be gone."""
    with contextlib.suppress(OSError):
        client.sendall(f"{number}\n".encode())


def _become(order: Order) -> int:
    """Run the program as `python ARGV` would in a fresh process; its exit code."""
    for stream, wanted in zip(order.streams, range(STREAMS), strict=True):
        os.dup2(stream, wanted)
        os.close(stream)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:0] = given
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    # A module of its own for good: what is pickled out of it is looked up there later.
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        _run(order)
    except SystemExit as exit:
        if exit.code is None or isinstance(exit.code, int):
            return (exit.code or 0) & 0xFF
        sys.stderr.write(f"{exit.code}\n")
        return 1
    return 0


def _run(order: Order) -> None:
    file, *arguments = order.argv
    if file == "-m":
        module, *arguments = arguments
        sys.path.insert(0, order.folder)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(file).parent))
        sys.argv = [file, *arguments]
        main_module = sys.modules["__main__"]
        main_module.__file__ = file
        code = compile(Path(file).read_bytes(), file, "exec")
        exec(code, vars(main_module))


def _end(code: int) -> None:
    """As multiprocessing ends its forks.

    Python itself would take down what was imported, module by module: that copies the pages which
    are shared, and takes 1.1 s.
    """
    threads: Any = threading
    callbacks: Any = atexit
    threads._shutdown()
    callbacks._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
