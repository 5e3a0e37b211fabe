"""The commands that a document shows in its ```bash blocks, as they are written there, and how they ended."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The forms of commands that are known; {words} of a command in none of these forms are a mistake of the document.
FORMS = {
    "train": r"(python|torchrun .*) -m monai\.bundle run training ",
    "evaluate": r"(python|torchrun .*) -m monai\.bundle run evaluating .*train\.json",
    "segment": r"python -m monai\.bundle run evaluating .*inference\.json",
    "ckpt_export": r"python -m monai\.bundle ckpt_export ",
    "onnx_export": r"python -m monai\.bundle onnx_export ",
    "verify_net_in_out": r"python -m monai\.bundle verify_net_in_out ",
    "prepare": r"msrf-monai data prepare \w+ --source downloads/",
    "synthesize": r"msrf-monai data synthesize \w+ ",
    "cross-dataset": r"msrf-monai experiment cross-dataset ",
}
PYTHON = "python"
"""The form of a Python example."""
NOT_RUN = re.compile(r"<!-- not run: needs (GPU|TensorRT)\b.*-->")


class DocumentError(ValueError):
    """A document shows a command that nobody knows how to try."""


@dataclass(frozen=True)
class Command:
    """A command of a document."""

    text: str
    """As written, on one line; a document that a heredoc writes is part of it. A Python example has its lines."""
    form: str
    """Which of the forms it has."""
    is_run: bool = True
    """Whether it can be run here: the document says so where it cannot."""

    def value(self, name: str, default: str) -> str:
        """Return the last value that an option of the command has."""
        found = re.findall(rf"--{name} (\S+)", self.text)
        return found[-1] if found else default


def documented(document: Path, forms: dict[str, str] = FORMS) -> list[Command]:
    """Return the commands of a document's bash blocks, and its Python examples, in their order.

    Raises:
        DocumentError: when a command has none of the forms.
    """
    commands = []
    for before, language, code in blocks(document.read_text(encoding="utf-8")):
        is_run = NOT_RUN.match(before) is None
        if language == "python":
            commands.append(Command(code, PYTHON, is_run))
            continue
        for text in split_commands(code):
            form = next((name for name, pattern in forms.items() if re.match(pattern, text, re.DOTALL)), None)
            if form is None:
                raise DocumentError(f"{document.name}: no known form of a command: {text}")
            commands.append(Command(text, form, is_run))
    return commands


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the line before each block of bash or Python, the language, and the block."""
    pattern = r"^(?P<before>[^\n]*)\n```(?P<language>bash|python)\n(?P<code>.*?)^```$"
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        yield match["before"], match["language"], match["code"]


def split_commands(code: str) -> Iterator[str]:
    """Yield the commands of a block, each on one line unless a heredoc belongs to it; leave comments out."""
    lines = iter(re.sub(r" *\\\n\s*", " ", code).splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        here = re.search(r"<<'(\w+)'$", line)
        if here:
            for part in lines:
                line += f"\n{part}"
                if part == here[1]:
                    break
        yield re.sub(r"\s+# .*$", "", line) if here is None else line


def run_command(command: Command, *, folder: Path, path: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a command by bash in a folder and with a PATH; both streams become stdout.

    Args:
        command: a command, or a Python example, which goes to the standard input of ``python``.
        folder: where it runs.
        path: where programs are found.
        timeout: seconds after which it is stopped.
    """
    is_python = command.form == PYTHON
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MPLBACKEND": "Agg"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "python -" if is_python else command.text],
        cwd=folder,
        env=environment,
        input=command.text if is_python else "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def unsaid(command: Command, said: str) -> list[str]:
    """Return the lines that a Python example should have printed by its comments, and has not, in their order."""
    rest = iter(said.splitlines())
    return [line for line in re.findall(r"^\s*print\(.*\)  # (.*)$", command.text, re.MULTILINE) if line not in rest]
