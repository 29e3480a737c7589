#!/usr/bin/env python3
"""The Python environment of the peer and of the parity scripts, made once per user.

    python3 benchmarks/speed/peer_env.py        # makes it if need be and prints the path of its interpreter

It lives in $XDG_CACHE_HOME/mcit/peer-venv (else ~/.cache/mcit/peer-venv), takes about 5 GB, because `import torch`
wants all CUDA libraries of the default wheel, and is refreshed when requirements.txt changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
NEEDED_GB = 8  # 5 installed, the rest for the wheels while pip unpacks them
OLDEST_PYTHON = (3, 11)


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcit"


def ensure_peer_python() -> Path:
    """The interpreter of the environment of the peer. Raises SystemExit with the reason."""
    return ensure_python("peer-venv", REQUIREMENTS, NEEDED_GB, "5 GB")


def ensure_python(name: str, requirements: Path, needed_gb: float, installed: str) -> Path:
    """The interpreter of an environment in the user's cache; makes or refreshes it first. Raises SystemExit with the reason."""
    if sys.version_info < OLDEST_PYTHON:
        raise SystemExit(f"the pinned packages need Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, "
                         f"this is {sys.version.split()[0]}")
    folder = cache_dir() / name
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(folder.parent).free / 1e9
    if not python.exists() and free_gb < needed_gb:
        raise SystemExit(f"{folder}: needs {needed_gb} GB, {free_gb:.1f} GB are free; set XDG_CACHE_HOME to a larger disk")
    print(f"installing the peer's packages into {folder} (once; about {installed})", file=sys.stderr)
    _run([sys.executable, "-m", "venv", str(folder)], "is the package python3-venv installed?")
    _run([str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", str(requirements)],
         "see pip's message above")
    stamp.write_text(wanted)
    return python


def _run(command: list[str], hint: str) -> None:
    result = subprocess.run(command, stdout=sys.stderr)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} … failed with status {result.returncode}; {hint}")


if __name__ == "__main__":
    print(ensure_peer_python())
