#!/usr/bin/env python3
"""The Python environment with Flower that the tests of the transport run against, made once per user.

    python3 tests/tools/flower_env.py        # makes it if need be and prints the path of its interpreter

It lives in $XDG_CACHE_HOME/mcit/flower-venv (else ~/.cache/mcit/flower-venv), takes about 0.4 GB, and is refreshed when
flower_requirements.txt changes. MCIT_FLOWER_PYTHON names an interpreter of your own instead, with flwr of another version.
`./dev setup --tests` calls this. Tests themselves never install anything: see find_flower().
"""

from __future__ import annotations

import os
from pathlib import Path

import python_env

REQUIREMENTS = Path(__file__).with_name("flower_requirements.txt")


def find_flower() -> Path | None:
    """The environment's interpreter, if it is there and as flower_requirements.txt wants it."""
    if chosen := os.environ.get("MCIT_FLOWER_PYTHON"):
        return Path(chosen)
    return python_env.find_python("flower-venv", REQUIREMENTS)


def ensure_flower() -> Path:
    """Makes or refreshes the environment. Raises SystemExit with the reason where that fails."""
    return find_flower() or python_env.ensure_python("flower-venv", REQUIREMENTS, "Flower", "0.4 GB")


if __name__ == "__main__":
    print(ensure_flower())
