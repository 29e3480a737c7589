#!/usr/bin/env python3
"""The Python environment of the tests that look at pages and event files, made once per user.

    python3 tests/tools/python_env.py        # makes it if need be and prints the path of its interpreter

It lives in $XDG_CACHE_HOME/mcit/test-venv (else ~/.cache/mcit/test-venv), takes about 0.3 GB, and is refreshed when
requirements.txt changes. `./dev setup --tests` calls this. Tests themselves never install anything: see enter().
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
SKIPPED = 4  # what CTest takes for a test that was left out


def _folder(name: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcit" / name


def _wanted(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()


def find_python(name: str = "test-venv", requirements: Path = REQUIREMENTS) -> Path | None:
    """An environment's interpreter, if it is there and as its requirements want it."""
    python, stamp = _folder(name) / "bin" / "python", _folder(name) / "requirements.sha256"
    return python if python.exists() and stamp.exists() and stamp.read_text() == _wanted(requirements) else None


def ensure_python(name: str = "test-venv", requirements: Path = REQUIREMENTS,
                  what: str = "the tests' packages", size: str = "0.3 GB") -> Path:
    """Makes or refreshes an environment. Raises SystemExit with the reason where that fails."""
    known = find_python(name, requirements)
    if known:
        return known
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    print(f"installing {what} into {folder} (once; about {size})", file=sys.stderr)
    _run([sys.executable, "-m", "venv", str(folder)], "is the package python3-venv installed?")
    _run([str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", str(requirements)],
         "see pip's message above")
    (folder / "requirements.sha256").write_text(_wanted(requirements))
    return python


def enter() -> None:
    """Goes on in the environment: starts the running script again with its interpreter. Skips the test without it."""
    python = find_python()
    if python is None:
        skip("the Python packages of these tests are not installed; ./dev setup --tests does that")
    if Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])


def skip(reason: str) -> None:
    print(f"skipped: {reason}")
    raise SystemExit(SKIPPED)


def _run(command: list[str], hint: str) -> None:
    result = subprocess.run(command, stdout=sys.stderr)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} … failed with status {result.returncode}; {hint}")


if __name__ == "__main__":
    print(ensure_python())
