#!/usr/bin/env python3
"""The Python environment with Flower that the tests of the transport run against, made once per user.

    python3 tests/tools/flower_env.py        # makes it if need be and prints the path of its interpreter

It lives in $XDG_CACHE_HOME/mcit/flower-venv (else ~/.cache/mcit/flower-venv), takes about 0.4 GB, and is refreshed when
flower_requirements.txt changes. MCIT_FLOWER_PYTHON names an interpreter of your own instead, with flwr of another version.
`./dev setup --tests` calls this. Tests themselves never install anything: see find_flower().
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("flower_requirements.txt")


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcit" / "flower-venv"


def _wanted() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def find_flower() -> Path | None:
    """The environment's interpreter, if it is there and as flower_requirements.txt wants it."""
    if chosen := os.environ.get("MCIT_FLOWER_PYTHON"):
        return Path(chosen)
    python, stamp = _folder() / "bin" / "python", _folder() / "requirements.sha256"
    return python if python.exists() and stamp.exists() and stamp.read_text() == _wanted() else None


def ensure_flower() -> Path:
    """Makes or refreshes the environment. Raises SystemExit with the reason where that fails."""
    if known := find_flower():
        return known
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    print(f"installing Flower into {folder} (once; about 0.4 GB)", file=sys.stderr)
    _run([sys.executable, "-m", "venv", str(folder)], "is the package python3-venv installed?")
    _run([str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", str(REQUIREMENTS)], "see pip's message above")
    (folder / "requirements.sha256").write_text(_wanted())
    return python


def _run(command: list[str], hint: str) -> None:
    result = subprocess.run(command, stdout=sys.stderr)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} … failed with status {result.returncode}; {hint}")


if __name__ == "__main__":
    print(ensure_flower())
