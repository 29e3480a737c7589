#!/usr/bin/env python3
"""What strategies cost beside plain LoRA, in one run of the engine.

    python3 benchmarks/speed/strategies.py           # three rounds, table, results/<date>-<cpu>-strategies.md

The same tiny LLaVA and records as run.py, whose README says what is timed. Four tasks; the last one's steps are timed,
with what the strategy made of the tasks before. Strategies take turns, a step counts with its fastest round. "hooks" is
the time in the strategy's own hooks after backward (projections), as a share of its step. "mixed" is the time to answer
batches of 32 that mix all four tasks, over that for batches of one task each, every row routed to its own task.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from peer_env import cache_dir, ensure_peer_python
from run import HERE, cpu_name, slug


@dataclass(frozen=True)
class Case:
    """One setting of one strategy, and the bounds it must keep."""

    name: str
    strategy: str
    settings: tuple[str, ...] = ()
    step: float | None = None  # over LoRA's
    hooks: float | None = None  # share of its own step
    mixed: float | None = None  # over single-task batches


RANK, EXPERTS = 64, 8
CASES = (
    Case("LoRA", "lora"),
    Case("MoE-LoRA, 8 experts", "moe_lora", step=1.35, mixed=1.3),
    Case("BranchLoRA, 8 branches", "branch_lora", step=1.25, mixed=1.3),
    Case("Fwd-Prompt", "fwd_prompt", hooks=0.05, mixed=1.3),
    Case("MmAP, projected", "mmap",
         ("shared_update=projected", "grouping=one", "depth=4", "eps_old=0.5"), hooks=0.05, mixed=1.3),
)


@dataclass
class Measured:
    step_s: list[float] = field(default_factory=list)
    hooks_s: float = float("inf")
    single_s: float = float("inf")
    mixed_s: float = float("inf")
    gemm: list[float] = field(default_factory=list)

    def add(self, report: dict) -> None:
        train, tasks = report["train"], report["tasks"]
        steps = train["step_s"]
        self.step_s = [min(pair) for pair in zip(self.step_s, steps, strict=True)] if self.step_s else steps
        hooks = train["hooks_s"]
        self.hooks_s = min(self.hooks_s, hooks.get("on_gradients", 0.0) + hooks.get("after_step", 0.0))
        self.single_s = min(self.single_s, tasks["single_task_s"])
        self.mixed_s = min(self.mixed_s, tasks["mixed_s"])
        self.gemm.append(report["gemm_gflops"])

    @property
    def step(self) -> float:
        return sum(self.step_s) / len(self.step_s)


def measure(args: argparse.Namespace, case: Case, report: Path) -> dict:
    command = [str(args.mcit), "bench-step", "--model", str(args.tiny / "model"), "--data", str(args.tiny),
               "--strategy", case.strategy, "--tasks", "4", "--steps", str(args.steps), "--warmup", "2", "--batch", "8",
               "--rank", str(RANK), "--experts", str(EXPERTS), "--eval-samples", "64", "--eval-batch", "32", "--max-new", "4",
               "--fixed-len", "--report", str(report)]
    for setting in case.settings:
        command += ["--set", setting]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed with status {result.returncode}:\n{result.stderr.strip()}")
    return json.loads(report.read_text())


def verdict(value: float, bound: float | None) -> str:
    return "" if bound is None else f" (<= {bound:g}: {'kept' if value <= bound else 'MISSED'})"


def table(found: dict[str, Measured]) -> str:
    lora = found["LoRA"].step
    lines = ["| | step, ms | / LoRA | hooks after backward / step | mixed / single-task batches |", "|---|---:|---:|---:|---:|"]
    for case in CASES:
        m = found[case.name]
        ratio, share, mixed = m.step / lora, m.hooks_s / m.step, m.mixed_s / m.single_s
        lines.append(f"| {case.name} | {1e3 * m.step:.1f} | {ratio:.3f}{verdict(ratio, case.step)} | "
                     f"{share:.4f}{verdict(share, case.hooks)} | {mixed:.3f}{verdict(mixed, case.mixed)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mcit", type=Path, default=HERE.parents[1] / "build/release/bin/mcit", help="the engine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tiny", type=Path, default=cache_dir() / "speed-tiny", help="folder of model and records")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if not args.mcit.exists():
        raise SystemExit(f"{args.mcit}: no such program; build it with ./dev build, or give --mcit")
    if not (args.tiny / "test.json").exists():
        subprocess.run([str(ensure_peer_python()), str(HERE / "make_tiny_llava.py"), "--out", str(args.tiny)], check=True)
    found: dict[str, Measured] = {case.name: Measured() for case in CASES}
    with tempfile.TemporaryDirectory(prefix="mcit-speed-") as work:
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", flush=True)
            for case in CASES:
                found[case.name].add(measure(args, case, Path(work) / "report.json"))
    rates = [rate for m in found.values() for rate in m.gemm]
    notes = [f"{cpu_name()}, one thread, process CPU time, {args.rounds} rounds in turn, batch 8, rank {RANK} in all, "
             f"{args.steps} timed steps; 64 rows answered in batches of 32, four tokens each.",
             f"Matrix product 832 x 512 x 1376 in the same runs: {min(rates):.1f} to {max(rates):.1f} Gflop/s."]
    text = "\n".join([table(found), "", *(f"- {note}" for note in notes)])
    args.results.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.date.today().isoformat()}-{slug(cpu_name())}-strategies"
    (args.results / f"{stem}.md").write_text(f"# What strategies cost, {datetime.date.today().isoformat()}\n\n{text}\n")
    print("", text, "", f"written: {args.results / stem}.md", sep="\n")
    return 0 if "MISSED" not in text else 1


if __name__ == "__main__":
    sys.exit(main())
