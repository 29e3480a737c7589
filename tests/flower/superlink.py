"""A stock SuperLink on loopback with toy nodes and mcit's app, in a folder of its own; all of it ends with the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
import flower_env  # noqa: E402

SETTINGS = """[federation]
run = "test"
rounds = {rounds}
deadline = {deadline}
retries = {retries}
quorum = {quorum}
seed = 3

[aggregate]
rule = "fedavg"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """SuperLink, nodes and runs of one test. Leaving it ends every process that it began."""

    def __init__(self, toy: str, library: str, rounds: int = 3, deadline: float = 15.0, retries: int = 3, quorum: int = 2) -> None:
        python = flower_env.find_flower()
        if python is None:
            print("skipped: Flower is not installed; ./dev setup --tests does that")
            raise SystemExit(4)
        self.bin, self.toy, self.library = python.parent, toy, library
        self._temporary = tempfile.TemporaryDirectory(prefix="mcit-flower-")
        self.folder = Path(self._temporary.name)
        self.port, self.processes = free_port(), []
        self.environment = {**os.environ, "FLWR_HOME": str(self.folder / "home"), "FLWR_TELEMETRY_ENABLED": "0",
                            "FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{self.bin}:{os.environ['PATH']}"}
        (self.folder / "home").mkdir()
        (self.folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n')
        self.settings = self.folder / "server.toml"
        self.settings.write_text(SETTINGS.format(rounds=rounds, deadline=deadline, retries=retries, quorum=quorum))
        self.ledger, self.model = self.folder / "ledger", self.folder / "model.safetensors"
        subprocess.run([toy, "--write-model", str(self.model)], check=True)

    def __enter__(self) -> World:
        return self

    def __exit__(self, failure, *_) -> None:
        for process in reversed(self.processes):
            self.kill(process)
        if failure:
            for log in sorted(self.folder.glob("*.log")):
                print(f"== {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        self._temporary.cleanup()

    def start(self, name: str, command: list[str]) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        self.processes.append(process)
        return process

    @staticmethod
    def kill(process: subprocess.Popen, with_signal: int = signal.SIGKILL) -> None:
        """The process and all that it began."""
        try:
            os.killpg(process.pid, with_signal)
        except ProcessLookupError:
            pass
        process.wait(timeout=30)

    def superlink(self) -> subprocess.Popen:
        process = self.start("superlink", [str(self.bin / "flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port",
                                           str(self.port), "--database", str(self.folder / "state.db"),
                                           "--disable-runtime-dependency-installation"])
        self.until(lambda: process.poll() is None and self._listens(), 120, "the SuperLink does not listen")
        return process

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def node(self, name: str, *options: str, log: str | None = None) -> subprocess.Popen:
        return self.start(log or name, [self.toy, "--url", f"http://127.0.0.1:{self.port}", "--id", name, *options])

    def run(self, nodes: int = 3) -> str:
        """Starts mcit's app and gives the id of the run."""
        config = (f'library="{self.library}" settings="{self.settings}" model="{self.model}" ledger="{self.ledger}" '
                  f"nodes={nodes} patience=60.0")
        done = subprocess.run([str(self.bin / "flwr"), "run", str(ROOT / "engine/fed/flower_app"), "here", "--run-config", config,
                               "--format", "json"], env=self.environment, capture_output=True, text=True, timeout=120)
        try:
            return str(json.loads(done.stdout)["run-id"])
        except (ValueError, KeyError):
            raise AssertionError(f"flwr run: {done.stdout}{done.stderr}") from None

    def status(self, run: str) -> str:
        done = subprocess.run([str(self.bin / "flwr"), "list", "here", "--run-id", run, "--format", "json"], env=self.environment,
                              capture_output=True, text=True, timeout=120)
        return str(json.loads(done.stdout)["runs"][0]["status"])

    def log_of(self, run: str) -> str:
        done = subprocess.run([str(self.bin / "flwr"), "log", run, "here", "--show"], env=self.environment, capture_output=True,
                              text=True, timeout=120)
        return done.stdout + done.stderr

    def record(self, number: int) -> dict | None:
        file = self.ledger / f"round-{number:06}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def committed(self, number: int, seconds: float = 120) -> dict:
        self.until(lambda: self.record(number) is not None, seconds, f"round {number} was not committed")
        return self.record(number)

    def embedded(self, *without: str) -> str:
        """The last state's SHA-256 of the same federation in one process."""
        command = [self.toy, "--settings", str(self.settings), "--clients", "ann,bob,cat"]
        with tempfile.TemporaryDirectory() as ledger:
            options = ["--without", ",".join(without)] if without else []
            done = subprocess.run([*command, "--ledger", ledger, *options], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    @staticmethod
    def until(holds, seconds: float, failure: str) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, failure
            time.sleep(0.2)
