#!/usr/bin/env python3
"""Time this engine beside Hugging Face transformers + PEFT on the same model folder, records and steps.

    python3 benchmarks/speed/run.py                  # everything: packages, tiny model, check, three rounds, tables
    python3 benchmarks/speed/run.py --peer-only      # the peer's numbers alone

1. The peer's environment is made (peer_env.py) and a tiny random LLaVA with records (make_tiny_llava.py).
2. Both sides train from the same initial adapter on the same records. Their losses must agree step by step to 1e-3,
   or nothing is timed and the exit status is 1. Greedy answers are compared too, and differences are reported.
3. Engine and peer are timed in turn, --rounds times, one thread, process CPU time. A training rate is the sum over
   the steps of each step's fastest round; an evaluation rate is that of the fastest round. Every run measures the rate
   of a plain matrix product as well, so that a busy machine shows.
4. The table goes to the terminal and, with everything measured, to results/<date>-<cpu>.{md,json}.

The engine is called as `mcit bench-step`; README.md says with what and what it reports.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peer_env import cache_dir, ensure_peer_python

HERE = Path(__file__).resolve().parent
LOSS_TOLERANCE = 1e-3
GEMM_DRIFT = 0.10  # runs whose matrix-product rates are further apart than this were not timed under like conditions
LABELS = {"lora": "LoRA", "moe_lora": "MoE-LoRA"}

REPORTED = ("train.step_s", "train.losses", "train.peak_rss_mb", "eval.samples_per_s_cpu", "eval.outputs", "gemm_gflops")

Report = dict[str, Any]


def lookup(report: Report, path: str) -> Any:
    """The value under a dotted path, None if there is none."""
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class Side:
    """One program with its settings; `name` is its column or row in the tables."""

    name: str
    is_engine: bool
    flags: tuple[str, ...]


ENGINE_WARM = Side("engine warm", True, ("--vision-cache", "warm"))
ENGINE_COLD = Side("engine cold", True, ("--vision-cache", "cold"))
TUNED = Side("tuned", False, ("--preset", "tuned"))
ASRUN = Side("asrun", False, ("--preset", "asrun"))
STRONGEST = Side("strongest", False, ("--preset", "tuned", "--vision-cache", "warm", "--moe-impl", "fused"))
EXACT = Side("exact", False, ("--preset", "exact"))
ORDER = (ENGINE_WARM, TUNED, ENGINE_COLD, ASRUN, STRONGEST)  # engine and peer in turn

# (strategy, measure, side) -> ratio over the peer's preset to reach; memory counts the other way round.
TARGETS: dict[tuple[str, str, str], tuple[str, float]] = {
    ("lora", "train", "engine warm"): ("tuned", 1.2),
    ("moe_lora", "train", "engine warm"): ("tuned", 2.5),
    ("lora", "eval", "engine warm"): ("asrun", 2.0),
    ("moe_lora", "eval", "engine warm"): ("asrun", 3.0),
    ("lora", "memory", "engine warm"): ("tuned", 0.6),
    ("moe_lora", "memory", "engine warm"): ("tuned", 0.25),
}
HOOKS_TARGET_MS = 0.05


@dataclass
class Measured:
    """What the rounds of one side with one strategy gave."""

    step_s: list[float] = field(default_factory=list)  # each step's fastest round
    eval_rate: float = 0.0
    peak_mb: float = 0.0
    gemm: list[float] = field(default_factory=list)
    hooks_ms: float | None = None

    def add(self, report: Report) -> None:
        steps = report["train"]["step_s"]
        self.step_s = [min(pair) for pair in zip(self.step_s, steps, strict=True)] if self.step_s else list(steps)
        self.eval_rate = max(self.eval_rate, report.get("eval", {}).get("samples_per_s_cpu", 0.0))
        peak = report["train"]["peak_rss_mb"]
        self.peak_mb = min(self.peak_mb, peak) if self.peak_mb else peak
        self.gemm.append(report["gemm_gflops"])
        if report.get("hooks_ms") is not None:
            self.hooks_ms = min(report["hooks_ms"], self.hooks_ms if self.hooks_ms is not None else report["hooks_ms"])

    @property
    def steps_per_s(self) -> float:
        return len(self.step_s) / sum(self.step_s)

    def value(self, measure: str) -> float:
        return {"train": self.steps_per_s, "eval": self.eval_rate, "memory": self.peak_mb}[measure]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mcit", type=Path, default=HERE.parents[1] / "build/release/bin/mcit", help="the engine")
    parser.add_argument("--peer-only", action="store_true", help="leave the engine out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--eval-samples", type=int, default=16)
    parser.add_argument("--max-new", type=int, default=4)
    parser.add_argument("--tiny", type=Path, default=cache_dir() / "speed-tiny", help="folder of model and records")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    for name in ("rounds", "steps", "batch", "eval_samples", "max_new"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return args


class Bench:
    def __init__(self, args: argparse.Namespace, python: Path, work: Path) -> None:
        self.args, self.python, self.work = args, python, work
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def make_tiny(self) -> None:
        if not (self.args.tiny / "test.json").exists():
            self._call([str(self.python), str(HERE / "make_tiny_llava.py"), "--out", str(self.args.tiny)])

    def run(self, side: Side, strategy: str, *flags: str) -> Report:
        """One run of one side; both sides take the same flags."""
        args = self.args
        report = self.work / "report.json"
        report.unlink(missing_ok=True)
        program = [str(args.mcit), "bench-step"] if side.is_engine else [str(self.python), str(HERE / "hf_peft_peer.py")]
        common = {"model": args.tiny / "model", "data": args.tiny, "strategy": strategy, "steps": args.steps,
                  "warmup": args.warmup, "batch": args.batch, "rank": args.rank, "experts": args.experts,
                  "alpha": 2 * args.rank, "lr": 2e-4, "projector-lr": 2e-5, "eval-samples": args.eval_samples,
                  "max-new": args.max_new, "report": report}
        settings = [text for name, value in common.items() for text in (f"--{name}", str(value))]
        self._call([*program, *settings, "--fixed-len", *side.flags, *flags])
        found = json.loads(report.read_text())
        missing = [path for path in REPORTED if lookup(found, path) is None]
        if missing:
            raise SystemExit(f"{side.name}, {LABELS[strategy]}: the report has no {', '.join(missing)}")
        return found

    def _call(self, command: list[str]) -> None:
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if result.returncode != 0:
            tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-15:])
            raise SystemExit(f"{' '.join(command)}\nfailed with status {result.returncode}:\n{tail}")

    def check(self, strategy: str) -> Report:
        """Losses and answers of the exact peer, and how far the engine's are from them."""
        dump = self.work / strategy
        peer = self.run(EXACT, strategy, "--dump", str(dump))
        losses = peer["train"]["losses"]
        result: Report = {"peer_losses": losses}
        if self.args.peer_only:
            return result
        for side in (ENGINE_COLD, ENGINE_WARM):
            engine = self.run(side, strategy, "--adapter-in", str(dump / "adapter_init.safetensors"))
            own = engine["train"]["losses"]
            if len(own) != len(losses):
                raise SystemExit(f"{LABELS[strategy]}, {side.name}: {len(own)} losses reported for {len(losses)} steps")
            gaps = [abs(left - right) for left, right in zip(losses, own, strict=True)]
            worst = math.inf if any(map(math.isnan, gaps)) else max(gaps)
            outputs = engine["eval"]["outputs"]
            same = sum(outputs.get(key) == ids for key, ids in peer["eval"]["outputs"].items())
            result[side.name] = {"losses": own, "largest_difference": worst, "same_answers": same}
            print(f"  {LABELS[strategy]}, {side.name}: losses differ by at most {worst:.2g} over {len(losses)} steps; "
                  f"{same} of {len(peer['eval']['outputs'])} greedy answers are the same", flush=True)
        return result

    def losses_agree(self, checks: dict[str, Report]) -> bool:
        found = [entry["largest_difference"] for check in checks.values() for entry in check.values()
                 if isinstance(entry, dict)]
        return all(worst <= LOSS_TOLERANCE for worst in found)


def cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text.lower())).strip("-")


def verdict(own: float, strategy: str, measure: str, engine: str, peers: dict[str, float]) -> str:
    """Whether the target of this row, if it has one, is reached."""
    preset, target = TARGETS.get((strategy, measure, engine), ("", 0.0))
    if not preset:
        return ""
    ratio = own / peers[preset]
    sign, reached = ("<=", ratio <= target) if measure == "memory" else (">=", ratio >= target)
    return f"/ {preset} {sign} {target:g}: {'reached' if reached else 'MISSED'}"


def table(args: argparse.Namespace, found: dict[tuple[str, str], Measured]) -> str:
    """The comparison as Markdown: a row for each strategy, measure and state of the engine's vision cache."""
    peer_names = [side.name for side in (TUNED, ASRUN, STRONGEST)]
    engines = [] if args.peer_only else [ENGINE_WARM.name, ENGINE_COLD.name]
    rows = [["", "unit", *peer_names]]
    if engines:
        rows[0] += ["engine", *(f"/ {name}" for name in peer_names), "target"]
    units = {"train": ("training", "steps/s"), "eval": ("evaluation", "samples/s"), "memory": ("peak memory", "MB")}
    for strategy in args.strategies:
        for measure, (label, unit) in units.items():
            peers = {name: found[strategy, name].value(measure) for name in peer_names}
            shown = [f"{value:.4g}" for value in peers.values()]
            if not engines:
                rows.append([f"{LABELS[strategy]} {label}", unit, *shown])
            for engine in engines:
                own = found[strategy, engine].value(measure)
                ratios = [f"{own / value:.2f}" for value in peers.values()]
                rows.append([f"{LABELS[strategy]} {label}, {engine.split()[1]}", unit, *shown, f"{own:.4g}", *ratios,
                             verdict(own, strategy, measure, engine, peers)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def remarks(args: argparse.Namespace, found: dict[tuple[str, str], Measured], checks: dict[str, Report]) -> list[str]:
    """What a reader needs beside the table."""
    rates = [rate for measured in found.values() for rate in measured.gemm]
    text = [
        f"{cpu_name()}, one thread, process CPU time, {args.rounds} rounds in turn, batch {args.batch}, "
        f"{args.steps} timed steps, {args.eval_samples} questions of {args.max_new} tokens on pictures of their own.",
        f"Matrix product 832 x 512 x 1376 in the same runs: {min(rates):.1f} to {max(rates):.1f} Gflop/s.",
        "Peer: `tuned` is the best setting of transformers + PEFT, `asrun` the published scripts' setting; both decode "
        "pictures and run the vision tower at every step. `strongest` has features cached and experts fused by hand.",
    ]
    if not args.peer_only:
        text.append("Engine: `cold` decodes pictures and runs the tower as the peer does, `warm` finds the features cached.")
    if (max(rates) - min(rates)) / max(rates) > GEMM_DRIFT:
        text.append(f"The matrix-product rate drifted by more than {GEMM_DRIFT:.0%}: the machine was busy, run again.")
    for strategy, check in checks.items():
        for side, entry in check.items():
            if isinstance(entry, dict):
                text.append(f"{LABELS[strategy]}, {side}: losses agree to {entry['largest_difference']:.2g}, "
                            f"{entry['same_answers']} of {args.eval_samples} greedy answers are the same.")
    hooks = [m.hooks_ms for m in found.values() if m.hooks_ms is not None]
    if hooks:
        result = "reached" if min(hooks) <= HOOKS_TARGET_MS else "MISSED"
        text.append(f"Hooks of an empty strategy: {min(hooks):.4f} ms a step (target <= {HOOKS_TARGET_MS} ms: {result}).")
    return text


def write_results(args: argparse.Namespace, found: dict[tuple[str, str], Measured], checks: dict[str, Report],
                  reports: list[Report]) -> Path:
    args.results.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.date.today().isoformat()}-{slug(cpu_name())}" + ("-peer-only" if args.peer_only else "")
    summary = [{"strategy": strategy, "side": side, "steps_per_s": m.steps_per_s,
                "samples_per_s": m.steps_per_s * args.batch, "eval_samples_per_s": m.eval_rate, "peak_mb": m.peak_mb,
                "gemm_gflops": m.gemm, "hooks_ms": m.hooks_ms, "step_s": m.step_s}
               for (strategy, side), m in found.items()]
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    data = {"cpu": cpu_name(), "load_average": os.getloadavg(), "settings": settings, "summary": summary,
            "checks": checks, "runs": reports}
    (args.results / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")
    text = "\n".join(f"- {line}" for line in remarks(args, found, checks))
    (args.results / f"{stem}.md").write_text(f"# Speed, {datetime.date.today().isoformat()}\n\n"
                                             f"{table(args, found)}\n\n{text}\n")
    return args.results / f"{stem}.md"


def compact(report: Report) -> Report:
    """A run without what would repeat itself in the results file."""
    evaluation = {k: v for k, v in report.get("eval", {}).items() if k != "outputs"}
    return {**{k: v for k, v in report.items() if k not in ("args", "eval")}, "eval": evaluation}


def main() -> int:
    args = parse_args()
    if not args.peer_only and not args.mcit.exists():
        raise SystemExit(f"{args.mcit}: no such program; build it with ./dev build, or give --mcit or --peer-only")
    python = ensure_peer_python()
    with tempfile.TemporaryDirectory(prefix="mcit-speed-") as work:
        bench = Bench(args, python, Path(work))
        bench.make_tiny()
        print("comparing losses", flush=True)
        checks = {strategy: bench.check(strategy) for strategy in args.strategies}
        if not bench.losses_agree(checks):
            print(f"the losses differ by more than {LOSS_TOLERANCE:g}: nothing is timed", file=sys.stderr)
            return 1
        found: dict[tuple[str, str], Measured] = {}
        reports: list[Report] = []
        for round_index in range(args.rounds):
            print(f"round {round_index + 1} of {args.rounds}", flush=True)
            for strategy in args.strategies:
                initial = str(Path(work) / strategy / "adapter_init.safetensors")
                for side in ORDER:
                    if side.is_engine and args.peer_only:
                        continue
                    report = bench.run(side, strategy, "--adapter-in", initial)
                    found.setdefault((strategy, side.name), Measured()).add(report)
                    reports.append({"round": round_index + 1, "strategy": strategy, "side": side.name, **compact(report)})
    path = write_results(args, found, checks, reports)
    print("", table(args, found), "", *remarks(args, found, checks), "", f"written: {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
