"""A process that has imported torch, MONAI and this package, and becomes the programs that it is asked for by forking.

``python -m monai.bundle`` needs many seconds to import what it needs, and hundredths of a second to fork. Nothing is
computed before the fork, so that the forked process is as fresh as a new one: own folder, environment, standard streams
and exit code, the program's own command line and ``__main__``.

Started as a script with the path of the socket to listen on; ``warm_client.py`` is the other end.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

WARM = (
    *("torch", "torch.distributed.run", "torch.utils.data", "monai.bundle", "monai.bundle.__main__", "monai.engines"),
    *("monai.handlers", "monai.inferers", "monai.transforms", "monai.optimizers", "monai.losses", "ignite.engine"),
    *("msrf_monai.bundle", "msrf_monai.data", "msrf_monai.engines", "msrf_monai.inferers", "msrf_monai.losses"),
    *("msrf_monai.metrics", "msrf_monai.networks", "msrf_monai.transforms", "msrf_monai.cli.main", "fire"),
    *("msrf_monai.cli.data", "msrf_monai.cli.experiment", "matplotlib.pyplot", "matplotlib.figure", "scipy.ndimage"),
    *("skimage.morphology", "sklearn.metrics", "tensorboard", "torch.utils.tensorboard", "PIL.Image", "fire.core"),
    *("torch.distributed.elastic.multiprocessing.api", "torch.onnx", "onnx", "onnxscript"),
)

LOOKS_UP_EVERY_S = 5.0
"""How often the process looks whether the tests that started it are still there."""


def serve(path: str) -> None:
    """Listen, and let a process of its own wait for each program, until the process that started this one is gone."""
    for name in WARM:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(LOOKS_UP_EVERY_S)
        parent = os.getppid()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the waiting processes ended
        while os.getppid() == parent:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _wait_for_program(connection)
                    os._exit(0)


def _wait_for_program(connection: socket.socket) -> None:
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked: dict[str, Any] = json.loads(message)
    child = os.fork()
    if child == 0:
        connection.close()
        _be(asked, streams)
    with open(os.pidfd_open(child), "rb") as program:  # noqa: PTH123
        ready, _, _ = select.select([program, connection], [], [])
    if connection in ready:  # whoever asked has gone
        os.kill(child, signal.SIGTERM)
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(code if code >= 0 else 128 - code).encode())


def _be(asked: dict[str, Any], streams: list[int]) -> None:
    """Become the program; never return."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.path[0] = ""
    sys.executable = asked["python"]  # programs that this one starts are forked, too
    code = 0
    try:
        PROGRAMS[asked["program"]](asked["words"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:
        code = 1
        sys.excepthook(type(error), error, error.__traceback__)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _python(words: list[str]) -> None:
    """``python -m MODULE …`` and ``python -``; the client starts a new Python for anything else."""
    if words[0] == "-":
        sys.argv = ["-"]
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
        return
    _, module, *arguments = words
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _torchrun(words: list[str]) -> None:
    """PyTorch's launcher; its workers are programs that it starts by ``sys.executable``."""
    from torch.distributed.run import main

    sys.argv = ["torchrun", *words]
    main(words)


def _msrf_monai(words: list[str]) -> None:
    from msrf_monai.cli.main import main

    sys.argv = ["msrf-monai", *words]
    main()


PROGRAMS = {"python": _python, "torchrun": _torchrun, "msrf-monai": _msrf_monai}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.path.insert(0, "")
    serve(sys.argv[1])
