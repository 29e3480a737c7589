"""A stock SuperLink on loopback with nodes and mcit's app, in a folder of its own; all of it ends with the test."""

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


# A busy machine needs longer: what is waited for, and what nodes have for a round, is as many times longer.
PATIENCE = float(os.environ.get("MCIT_TEST_PATIENCE", "1"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def expect(got, wanted, what: str) -> None:
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def one_client(run: str, rounds: int, train: str) -> str:
    """Settings of a federation of one client and one task."""
    return f"""suite = "smoke"
order = ["vqa"]
threads = 1
[strategy]
name = "sequential"
rank = 2
[train]
{train}
[partition]
clients = 1
[stream]
rounds_per_stage = {rounds}
[federation]
run = "{run}"
"""


class World:
    """SuperLink, nodes and runs of one test. Leaving it ends every process that it began."""

    def __init__(self, library: str) -> None:
        python = flower_env.find_flower()
        if python is None:
            print("skipped: Flower is not installed; ./dev setup --tests does that")
            raise SystemExit(4)
        self.bin, self.library = python.parent, library
        self._temporary = tempfile.TemporaryDirectory(prefix="mcit-flower-")
        self.folder = Path(self._temporary.name)
        self.port, self.processes = free_port(), []
        self.environment = {**os.environ, "FLWR_HOME": str(self.folder / "home"), "FLWR_TELEMETRY_ENABLED": "0",
                            "FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{self.bin}:{os.environ['PATH']}"}
        self.settings, self.model = self.folder / "server.toml", self.folder / "model.safetensors"
        self.ledger, self.certificates = self.folder / "ledger", None

    def __enter__(self) -> World:
        return self

    def __exit__(self, failure, *_) -> None:
        for process in reversed(self.processes):
            self.kill(process)
        if failure:
            for log in sorted(self.folder.glob("*.log")):
                print(f"== {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        self._temporary.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    def start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment | environment, start_new_session=True)
        self.processes.append(process)
        return process

    def text_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    @staticmethod
    def kill(process: subprocess.Popen, with_signal: int = signal.SIGKILL) -> None:
        """The process and all that it began."""
        try:
            os.killpg(process.pid, with_signal)
        except ProcessLookupError:
            pass
        process.wait(timeout=60)

    def program(self, name: str) -> list[str]:
        """flower-`name`. Where patience is asked for, an app that has not begun after 30 s is not yet taken for dead."""
        if PATIENCE <= 1.0:
            return [str(self.bin / f"flower-{name}")]
        return [str(self.bin / "python"), "-c", f"import sys, flwr.common.constant as c; c.HEARTBEAT_DEFAULT_INTERVAL *= {PATIENCE}; "
                f"from flwr.{name}.cli import flower_{name} as main; sys.exit(main())"]

    def superlink(self, *options: str) -> subprocess.Popen:
        """With TLS where `certificates` has a folder with ca.pem, server.pem and server.key."""
        home, tls = self.folder / "home", ["--insecure"]
        connection = "insecure = true"
        if folder := self.certificates:
            tls = ["--ssl-ca-certfile", f"{folder}/ca.pem", "--ssl-certfile", f"{folder}/server.pem", "--ssl-keyfile", f"{folder}/server.key"]
            connection = f'root-certificates = "{folder}/ca.pem"'
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n{connection}\n')
        process = self.start("superlink", [*self.program("superlink"), *tls, "--host", "127.0.0.1", "--port", str(self.port),
                                           "--database", str(self.folder / "state.db"), "--disable-runtime-dependency-installation",
                                           *options])
        self.until(lambda: process.poll() is not None or self._listens(), 120, "the SuperLink does not listen")
        assert process.poll() is None, "the SuperLink has ended"
        return process

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def flwr(self, *arguments: str) -> str:
        done = subprocess.run([str(self.bin / "flwr"), *arguments], env=self.environment, capture_output=True, text=True, timeout=180 * PATIENCE)
        assert done.returncode == 0, f"flwr {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, nodes: int, app: Path = ROOT / "engine/fed/flower_app") -> str:
        """Starts mcit's app and waits until it does. Nodes that are there already make its start slower. @return the run's id"""
        config = (f'library="{self.library}" settings="{self.settings}" model="{self.model}" ledger="{self.ledger}" '
                  f"nodes={nodes} patience={120.0 * PATIENCE}")
        run = str(json.loads(self.flwr("run", str(app), "here", "--run-config", config, "--format", "json"))["run-id"])
        self.until(lambda: self.record(0) is not None, 60, "the app has not begun")
        return run

    def status(self, run: str) -> str:
        return str(json.loads(self.flwr("list", "here", "--run-id", run, "--format", "json"))["runs"][0]["status"])

    def ends(self, run: str, status: str) -> None:
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.status(run)
            return seen.startswith("finished")

        self.until(there, 120, f"the run does not end: {seen}")
        expect(seen, status, f"run {run}")

    def record(self, number: int) -> dict | None:
        file = self.ledger / f"round-{number:06}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def committed(self, number: int, seconds: float = 120) -> dict:
        self.until(lambda: self.record(number) is not None, seconds, f"round {number} was not committed")
        return self.record(number)

    def same_states(self, embedded: Path, rounds: int, seconds: float) -> None:
        """Every round ends with the bits that it has in this run of `mcit federate`."""
        for number in range(1, rounds + 1):
            theirs = json.loads((embedded / "ledger" / f"round-{number:06}.json").read_text())
            expect(self.committed(number, seconds)["after"], theirs["after"], f"the state after round {number}")

    @staticmethod
    def until(holds, seconds: float, failure: str) -> None:
        end = time.monotonic() + seconds * PATIENCE
        while not holds():
            assert time.monotonic() < end, failure
            time.sleep(0.2)


class ToyWorld(World):
    """Nodes whose training is a formula, so that the same federation in one process takes no time."""

    def __init__(self, library: str, toy: str, **settings) -> None:
        super().__init__(library)
        self.toy, self.names = toy, []
        lines = {"rounds": 3, "deadline": 8.0 * PATIENCE, "retries": 3, "quorum": 2, "seed": 3, **settings}
        self.settings.write_text('[federation]\nrun = "test"\n' + "".join(f"{k} = {v}\n" for k, v in lines.items()) +
                                 '\n[aggregate]\nrule = "fedavg"\n')
        subprocess.run([toy, "--write-model", str(self.model)], check=True)

    def node(self, name: str, *options: str, log: str | None = None) -> subprocess.Popen:
        if name not in self.names:
            self.names.append(name)
        return self.start(log or name, [self.toy, "--url", self.url, "--id", name, *options])

    def embedded(self, rounds: int) -> str:
        """The last state's SHA-256 of the same clients in one process, with those in each round that the records say were used."""
        without = []
        for number in range(1, rounds + 1):
            used = {client["client"] for client in self.record(number)["used"]}
            without += [f"{name}@{number}" for name in self.names if name not in used]
        with tempfile.TemporaryDirectory() as ledger:
            done = subprocess.run([self.toy, "--settings", str(self.settings), "--ledger", ledger, "--clients", ",".join(self.names),
                                   "--without", ",".join(without)], check=True, capture_output=True, text=True)
        return done.stdout.strip()
