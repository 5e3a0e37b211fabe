"""Stands for a program on the PATH and asks ``warm_server.py`` to be it; imports little, so that it starts at once.

``python -IS warm_client.py PROGRAM SOCKET WORDS…``
"""

import json
import os
import socket
import sys


def main() -> int:
    """Pass on the command line, the environment, the folder and the standard streams; return the exit code."""
    program, path, *words = sys.argv[1:]
    if program == "python" and words[:1] == ["-u"]:
        words = words[1:]
    if program == "python" and not (words[:1] == ["-m"] or words == ["-"]):
        os.execv(sys.executable, [sys.executable, *words])
    asked = {
        "program": program,
        "words": words,
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
        "python": os.path.join(os.path.dirname(path), "python"),  # noqa: PTH118, PTH120
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    sys.exit(main())
