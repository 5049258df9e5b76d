"""Stands for `python`: runs a program in a fork of the warm server, or in python itself.

`python -I -S warm_client.py SOCKET ARGUMENTS...` where the arguments are python's. What the
program would get from here it gets: streams, environment, folder, signals; its exit code is this
one's. Without a server at SOCKET, python takes this process's place. Nothing but the standard
library is imported: this starts in 20 ms.
"""

import json
import os
import select
import signal
import socket
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

LOOK_S = 0.5
"""A signal is acted on after this long at most."""


def main(argv: list[str]) -> int:
    """Run the program; its exit code."""
    path, *program = argv
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(path)
    except OSError:
        os.execv(sys.executable, [sys.executable, *program])
    # Held back until it is known to whom they go.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    order = {"argv": program, "environment": dict(os.environ), "folder": os.getcwd()}
    content = json.dumps(order).encode()
    socket.send_fds(server, [len(content).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(content)
    answers = server.makefile()
    child = int(answers.readline())
    for number in PASSED_ON:
        signal.signal(number, lambda received, _: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    # In pieces: a signal between Python's last look and the wait is only seen after the wait.
    while not select.select([server], [], [], LOOK_S)[0]:
        pass
    code = int(answers.readline() or 1)
    if code < 0:
        _end_by(-code)
    return code


def _end_by(number: int) -> None:
    """End as the program did."""
    if number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
