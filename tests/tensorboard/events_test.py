#!/usr/bin/env python3
"""Event files of runs, read by the tensorboard package and compared with metrics.jsonl and result.json.

    events_test.py path/to/mcit

Runs to the end, stops and goes on, is killed and goes on, loses its event file and goes on: each time every number must
be there once.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import python_env

SUITE = """
[mini]
train = 32
test = 12
"""
TASK = """
[[tasks]]
name = "{0}"
train = "{0}/train.json"
test = "{0}/test.json"
max_new_tokens = 4
"""
STEPS, STAGES = 6, 3


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def expected_points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, from metrics.jsonl and the matrix: the mapping that docs/guide/report.md describes."""
    points = defaultdict(list)
    before = step = stage = 0
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["stage"] != stage:
            before, step, stage = before + step, 0, line["stage"]
        step = line.get("step", step)
        for key, value in line.items():
            if isinstance(value, str) or value is None or key in ("stage", "step"):
                continue
            own = key.startswith("strategy.")
            group = line.get("hook") or ("strategy" if own else "train")
            points[f"{group}/{key.removeprefix('strategy.')}"].append((before + step, float32(value)))
    result = json.loads((run / "result.json").read_text())
    for row, scores in enumerate(result["matrix"]):
        for task, score in zip(result["tasks"], scores):
            if score is not None:
                points[f"score/{task['name']}"].append((row, float32(score)))
    return dict(points)


def read_points(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    times = [e.wall_time for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    assert all(abs(t - time.time()) < 3600 for t in times), "wall times are not of this hour"
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check(run: Path, name: str) -> None:
    expected, found = expected_points(run), read_points(run)
    assert set(found) == set(expected), f"{name}: tags {sorted(set(found) ^ set(expected))}"
    for tag, points in expected.items():
        assert found[tag] == points, f"{name}: {tag}\n  expected {points}\n  found    {found[tag]}"
    assert len(expected["train/loss"]) == STEPS * STAGES, f"{name}: {len(expected['train/loss'])} steps"
    assert "score/geo" in expected and len(expected["score/geo"]) == STAGES + 1, name
    print(f"{name}: {sum(map(len, expected.values()))} points under {len(expected)} tags are the same")


class Place:
    def __init__(self, mcit: str, folder: Path) -> None:
        self.mcit, self.folder = mcit, folder
        (folder / "small.toml").write_text(SUITE + "".join(TASK.format(t) for t in ("vqa", "geo", "count")))
        self.environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def arguments(self, name: str) -> list[str]:
        settings = [f"train.steps={STEPS}", "train.batch=8", "threads=1", "run.snapshot_every=2", "eval.cell_cache=false"]
        sets = [part for s in settings for part in ("--set", s)]
        return ["run", "--suite", str(self.folder / "small.toml"), "--strategy", "ewc", "--out", str(self.folder / name), *sets]

    def run(self, *arguments: str) -> None:
        done = subprocess.run([self.mcit, *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def killed(self, name: str) -> None:
        """A run that is killed in its second stage, between two snapshots."""
        process = subprocess.Popen([self.mcit, *self.arguments(name)], env=self.environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        snapshots = self.folder / name / "snapshots"
        while process.poll() is None and not any(f.name.startswith("0001-") for f in snapshots.glob("*.safetensors")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"


def main(mcit: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(mcit, Path(folder))
        run = place.folder / "whole"
        place.run(*place.arguments("whole"))
        check(run, "to the end")

        place.run(*place.arguments("stopped"), "--stop-after", "1")
        place.run("run", "--resume", str(place.folder / "stopped"))
        check(place.folder / "stopped", "stopped and resumed")

        place.killed("killed")
        place.run("run", "--resume", str(place.folder / "killed"))
        check(place.folder / "killed", "killed and resumed")

        place.run(*place.arguments("lost"), "--stop-after", "2")
        (place.folder / "lost" / "events.out.tfevents.mcit").unlink()
        place.run("run", "--resume", str(place.folder / "lost"))
        check(place.folder / "lost", "resumed without its event file")

        place.run(*place.arguments("none"), "--set", "run.tensorboard=false", "--stop-after", "1")
        assert not list((place.folder / "none").glob("*tfevents*")), "run.tensorboard=false left an event file"
        print("run.tensorboard=false leaves none")


if __name__ == "__main__":
    python_env.enter()
    main(sys.argv[1])
