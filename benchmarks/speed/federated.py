#!/usr/bin/env python3
"""What the framework costs around federated training: clients do no work and return an adapter as they got it.

    python3 benchmarks/speed/federated.py            # 16 clients, 6.8 MB, beside Flower's own simulation

Per client and round: "rounds" is the round engine through its C interface (plan, download, an update made of the
download, checks, aggregation, and the committed state on disk); "Flower" its simulation engine over the same arrays, which writes
nothing; "embedded" is mcit federate on the built-in model with an adapter of about that size, everything but the steps.
"64 clients" is the time per trained row of 64 clients over that of one client who trains as much, the whole command's
training time. The engine's rounds come first and last, and Flower in between. Wall time on a shared machine measures the
neighbours, so that the bound is on the process's CPU time; Flower's is many processes', and has wall time alone.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import re
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from peer_env import cache_dir, ensure_python
from run import HERE, cpu_name, slug

ROOT = HERE.parent.parent
TENSORS = 16
RANK, STEPS, BATCH = 160, 4, 8  # of mcit federate
CLIENTS, ROUNDS = 64, 3  # of mcit federate; one client alone trains as often as all of them
BOUND_MS, BOUND_RATIO = 5.0, 1.10  # of a client-round at 6.8 MB; of 64 clients over one
FLOWER = """
import json, sys, time
import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

clients, params, rounds, tensors = map(int, sys.argv[1:5])
arrays = [np.full(params // tensors, 0.5, np.float32) for _ in range(tensors)]
began, took = [], []

class Idle(NumPyClient):
    def fit(self, parameters, config):
        return parameters, 1, {}

class Timed(FedAvg):
    def configure_fit(self, *args, **kwargs):
        began.append(time.perf_counter())
        return super().configure_fit(*args, **kwargs)
    def aggregate_fit(self, *args, **kwargs):
        out = super().aggregate_fit(*args, **kwargs)
        took.append(time.perf_counter() - began[-1])
        return out

def server(context):
    strategy = Timed(fraction_fit=1.0, fraction_evaluate=0.0, min_available_clients=clients,
                     initial_parameters=ndarrays_to_parameters(arrays))
    return ServerAppComponents(config=ServerConfig(num_rounds=rounds), strategy=strategy)

run_simulation(ServerApp(server_fn=server), ClientApp(client_fn=lambda context: Idle().to_client()), num_supernodes=clients,
               backend_config={"client_resources": {"num_cpus": 1}})
print(json.dumps(took))
"""


class Client(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("id", ctypes.c_char_p), ("examples", ctypes.c_int64)]


class Plan(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("round", ctypes.c_uint32), ("attempt", ctypes.c_uint32),
                ("seconds_left", ctypes.c_double), ("clients", ctypes.c_size_t),
                ("ids", ctypes.POINTER(ctypes.c_char_p)), ("base", ctypes.c_char * 65)]


class Verdict(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("verdict", ctypes.c_uint32), ("reason", ctypes.c_char * 256)]


class Round(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("outcome", ctypes.c_uint32), ("round", ctypes.c_uint32),
                ("attempts", ctypes.c_uint32), ("used", ctypes.c_uint32), ("rejected", ctypes.c_uint32),
                ("missing", ctypes.c_uint32), ("late", ctypes.c_uint32), ("bytes_up", ctypes.c_uint64),
                ("bytes_down", ctypes.c_uint64), ("before", ctypes.c_char * 65), ("after", ctypes.c_char * 65),
                ("reason", ctypes.c_char * 256)]


def beginning(params: int, metadata: dict[str, str]) -> bytes:
    """What stands before the numbers of a safetensors blob of the benchmark's arrays."""
    each = params // TENSORS
    header = {f"t{i:02}": {"dtype": "F32", "shape": [each], "data_offsets": [4 * each * i, 4 * each * (i + 1)]}
              for i in range(TENSORS)}
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def made(kind: type) -> ctypes.Structure:
    out = kind()
    out.size = ctypes.sizeof(kind)
    return out


def engine_rounds(library: Path, clients: int, params: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds of each round: of the clock, of the CPU."""
    fed = ctypes.CDLL(str(library))
    fed.mcit_fed_error.restype = ctypes.c_char_p

    def call(name: str, *args: object) -> None:
        if getattr(fed, name)(*args) != 0:
            raise SystemExit(f"{name}: {fed.mcit_fed_error().decode()}")

    took = []
    with tempfile.TemporaryDirectory() as folder:
        handle = ctypes.c_void_p()
        settings = f'[federation]\nrun = "bench"\nrounds = {rounds}\n[aggregate]\nrule = "fedavg"\n'
        call("mcit_fed_open", settings.encode(), folder.encode(), ctypes.byref(handle))
        model = beginning(params, {}) + struct.pack("<f", 0.5) * (params // TENSORS * TENSORS)
        call("mcit_fed_begin", handle, model, ctypes.c_size_t(len(model)))
        ids = [f"client-{k:03}".encode() for k in range(clients)]
        roster = (Client * clients)(*[Client(ctypes.sizeof(Client), name, 1) for name in ids])
        ahead = 65536  # room for the update's header in front of the numbers, which stay where they are
        room = ctypes.create_string_buffer(len(model) + 2 * ahead)
        address = ctypes.addressof(room)
        for _ in range(rounds):
            start = time.perf_counter(), time.process_time()
            plan = made(Plan)
            call("mcit_fed_plan", handle, roster, ctypes.c_size_t(clients), ctypes.byref(plan))
            base = plan.base.decode()
            for name in ids:
                needed = ctypes.c_size_t()
                call("mcit_fed_download", handle, name, ctypes.c_void_p(address + ahead), ctypes.c_size_t(len(room) - ahead),
                     ctypes.byref(needed))
                numbers = ahead + 8 + struct.unpack_from("<Q", room, ahead)[0]
                head = beginning(params, {"schema": "mcit.update.1", "run": "bench", "task": "t", "round": str(plan.round),
                                          "base": base, "client": name.decode(), "examples": "1", "strategy": "",
                                          "strategy_version": "", "encoding": "full"})
                ctypes.memmove(address + numbers - len(head), head, len(head))
                verdict = made(Verdict)
                call("mcit_fed_offer", handle, name, plan.round, ctypes.c_void_p(address + numbers - len(head)),
                     ctypes.c_size_t(ahead + needed.value - numbers + len(head)), ctypes.byref(verdict))
                if verdict.verdict != 0:
                    raise SystemExit(f"an update was refused: {verdict.reason.decode()}")
            closed = made(Round)
            call("mcit_fed_close", handle, ctypes.byref(closed))
            if closed.outcome != 1 or closed.used != clients:
                raise SystemExit(f"a round did not commit: {closed.reason.decode()}")
            took.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        fed.mcit_fed_free(handle)
    return took


def flower_rounds(clients: int, params: int, rounds: int) -> list[float]:
    python = ensure_python("flower-peer-venv", HERE / "requirements-flower.txt", needed_gb=2, installed="0.7 GB")
    done = subprocess.run([python, "-c", FLOWER, str(clients), str(params), str(rounds), str(TENSORS)],
                          capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(cache_dir() / "flower-home"),
                                                               "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"})
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if done.returncode != 0 or not lines:
        raise SystemExit(f"Flower's simulation failed:\n{done.stderr[-3000:]}")
    return json.loads(lines[-1])


@dataclass(frozen=True)
class Embedded:
    """A client's round of mcit federate."""

    wall_ms: float  # besides the steps
    cpu_ms: float
    megabytes: float  # of an update
    row_s: float  # CPU seconds of a trained row, all in


def embedded(mcit: Path, clients: int, rounds: int) -> Embedded:
    """All but the last of the rounds, so that nothing is evaluated."""
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder) / "run", Path(folder) / "bench.toml"
        settings = {"suite": "mini4", "model": "mini", "threads": 1, "strategy.name": "sequential", "strategy.rank": RANK,
                    "train.steps": STEPS, "train.batch": BATCH, "train.schedule": "constant", "partition.kind": "iid",
                    "partition.clients": clients, "stream.rounds_per_stage": rounds, "eval.base": False}
        file.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()) + "\n")
        done = subprocess.run([mcit, "federate", file, "--out", out, "--stop-after", str(rounds - 1)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"mcit federate failed:\n{done.stderr[-3000:]}")
        found = re.findall(r"a client's round took ([0-9.]+) ms besides its training \(([0-9.]+) ms of the CPU\), "
                           r"in all ([0-9.]+) ms of the CPU", (out / "log.txt").read_text())
        if not found:
            raise SystemExit("the log of mcit federate does not say what a client's round took")
        records = json.loads((out / "result.json").read_text())["federated"]["rounds"][1:]
        up = sum(r["bytes_up"] for r in records) / sum(len(r["used"]) for r in records)
        wall, cpu, total = map(float, found[-1])
        return Embedded(wall, cpu, up / 1e6, total / 1000.0 / (STEPS * BATCH))


def commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--params", type=int, default=1_700_000, help="numbers of the adapter, float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    parser.add_argument("--without", action="append", default=[], choices=["flower", "embedded"], help="leave this part out")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    library = next(iter(sorted(args.build.rglob("libmcit_fed.so"))), None)
    if library is None:
        raise SystemExit(f"{args.build}: has no libmcit_fed.so; ./dev build makes it")
    ours = engine_rounds(library, args.clients, args.params, args.rounds)
    flower = [] if "flower" in args.without else flower_rounds(args.clients, args.params, args.rounds)
    ours += engine_rounds(library, args.clients, args.params, args.rounds)
    size = f"{4e-6 * (args.params // TENSORS * TENSORS):.1f} MB, {args.clients} clients"
    each = 1000.0 / args.clients
    rows = [("rounds", size, each * min(wall for wall, _ in ours), each * min(cpu for _, cpu in ours))]
    if flower:
        rows.append(("Flower", size, each * min(flower), None))
    ratio = None
    if "embedded" not in args.without:
        mcit = args.build / "bin" / "mcit"
        one, many = [], []
        for _ in range(2):
            one.append(embedded(mcit, 1, CLIENTS * ROUNDS + 1))
            many.append(embedded(mcit, CLIENTS, ROUNDS + 1))
        best = min(many, key=lambda m: m.cpu_ms)
        rows.append(("embedded", f"{best.megabytes:.1f} MB, {CLIENTS} clients", best.wall_ms, best.cpu_ms))
        ratio = min(m.row_s for m in many) / min(o.row_s for o in one)
    lines = ["| | | wall, ms | CPU, ms |", "|---|---|---:|---:|"]
    for name, what, wall, cpu in rows:
        kept = "" if cpu is None else f"{cpu:.2f} (<= {BOUND_MS:g}: {'kept' if cpu <= BOUND_MS else 'NOT KEPT'})"
        lines.append(f"| {name} | {what} | {wall:.2f} | {kept} |")
    if ratio is not None:
        lines += ["", f"{CLIENTS} clients, time of a trained row over that of one client: {ratio:.3f} "
                      f"(<= {BOUND_RATIO:g}: {'kept' if ratio <= BOUND_RATIO else 'NOT KEPT'})"]
    text = "\n".join(lines)
    print(text)
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"{datetime.date.today().isoformat()}-{slug(cpu_name())}-federated.md"
    path.write_text(f"# What a client's round costs besides training, {datetime.date.today().isoformat()}\n\n{text}\n\n"
                    f"- {cpu_name()}, commit {commit()}, the least of {2 * args.rounds} rounds, clients one after the other; embedded: the mean of "
                    f"{ROUNDS} rounds, the less of two runs; `benchmarks/speed/federated.py`.\n")
    print(f"\nwritten to {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
