"""How this very command is typed, so that the commands we print work when they are typed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

from ourospec.cli import VERBS

COMMAND = re.compile(rf"\bouro (?=(?:{'|'.join(VERBS)})\b|VERB\b|--help)")


def program() -> str:
    """`ouro` where the shell finds it there, else the path it was started by: .venv/bin/ouro."""
    started, found = Path(sys.argv[0]), shutil.which("ouro")
    if started.name != "ouro" or (found and Path(found).resolve() == started.resolve()):
        return "ouro"
    return shlex.quote(str(started))


def as_typed(text: str) -> str:
    """A text whose commands begin as this one was begun."""
    name = program()
    return text if name == "ouro" else COMMAND.sub(lambda _: f"{name} ", text)
