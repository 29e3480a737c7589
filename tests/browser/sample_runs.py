"""Run folders to make reports of: small, made by rule, with everything in them that a report can show."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

TASKS = ["colour", "shape", "size", "place"]
EVIL = "</script><img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script>"
ROWS = 12


def png(path: Path, width: int, height: int, rgb: tuple[int, int, int]) -> None:
    """One colour; chunks as in the PNG specification."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(rgb) * width for _ in range(height))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def question(task: str, row: int) -> str:
    return EVIL if (task, row) == ("colour", 1) else f"<image> which {task} is number {row} ?"


def suite(folder: Path) -> Path:
    """A suite whose test rows have pictures. Returns its file."""
    text = ['name = "sample"', f'data = "{folder}"', 'image_root = "pictures"']
    for t, task in enumerate(TASKS):
        rows = []
        for row in range(ROWS):
            image = f"{task}/{row}.png"
            png(folder / "pictures" / image, 640, 320, (40 + 50 * t, 15 * row, 160))
            rows.append({"question_id": f"{task}-{row}", "image": image, "text": question(task, row), "answer": "right"})
        (folder / f"{task}.json").write_text(json.dumps(rows))
        text += ["[[tasks]]", f'name = "{task}"', f'train = "{task}.json"', f'test = "{task}.json"']
    (folder / "sample.toml").write_text("\n".join(text) + "\n")
    return folder / "sample.toml"


def fate(task: int, stage: int, row: int, strength: int) -> str:
    """right, wrong or odd (wrong in another form), of a row after a stage; stage = task + 1 learns the task."""
    age = stage - task - 1
    if row % 6 == 5 or age < 0:
        return "wrong"
    return "right" if row % 4 + strength >= age + 1 or age == 0 else "odd" if row % 2 else "wrong"


def run(folder: Path, suite_file: Path, strategy: str, seed: int, strength: int, selects: bool = False) -> Path:
    (folder / "predictions").mkdir(parents=True)
    size = len(TASKS)
    matrix, selector = [], []
    for stage in range(size + 1):
        scores = []
        for t, task in enumerate(TASKS):
            lines, right = [], 0
            for row in range(ROWS):
                what = fate(t, stage, row, strength + seed)
                right += what == "right"
                answer = {"right": "right", "wrong": f"answer of stage {stage}", "odd": "?!"}[what]
                lines.append(json.dumps({"question_id": f"{task}-{row}", "prompt": question(task, row), "text": answer,
                                         "gold": "right", "score": float(what == "right"), "well_formed": what != "odd"}))
            (folder / "predictions" / f"{stage:02}_{task}.jsonl").write_text("\n".join(lines) + "\n")
            scores.append(100 * right / ROWS)
        matrix.append(scores)
        selector.append([100.0 - 2 * (stage - t) if selects and stage > t else None for t in range(size)])
    cost = {"trainable_parameters": 1000 * 4**strength, "stored_parameters": 2000 * 4**strength, "steps": 10, "examples": 100,
            "tokens": 4000, "train_seconds": 3.0 + strength + seed / 10, "eval_seconds": 1.0, "peak_memory_mb": 100.0 + 9 * strength}
    tables = [{"stage": task, "name": "experts", "rows": [f"layers.{i}.mlp" for i in range(4)], "columns": ["1", "2", "3"],
               "values": [[(10 * i + 7 * j + 3 * s) % 50 for j in range(3)] for i in range(4)], "plot": "heat_map"}
              for s, task in enumerate(TASKS)] if selects else []
    result = {"schema": 1, "mcit": "0.1.0", "suite": "sample", "strategy": strategy, "seed": seed, "complete": True,
              "tasks": [{"name": t, "test_examples": ROWS, "chance": 25.0} for t in TASKS],
              "stages": [{"name": t, "tasks": [i]} for i, t in enumerate(TASKS)], "matrix": matrix, "tables": tables,
              "costs": {"base_eval_seconds": 1.0, "stages": [{"stage": t, **cost} for t in TASKS]},
              "provenance": {"command": f"mcit run {EVIL}", "config": f'suite = "{suite_file}"\nseed = {seed}\n',
                             "device": "cpu", "dtype": "Float", "threads": 1, "started": "2026-01-01T00:00:00Z"}}
    if selects:
        result |= {"selector_accuracy": [100.0] * size, "matrix_selector": selector, "matrix_oracle": matrix}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def all_runs(folder: Path) -> list[Path]:
    file = suite(folder / "data")
    return [run(folder / f"{name}-{seed}", file, name, seed, strength, selects=name == "routed")
            for strength, name in enumerate(["plain", "steady", "routed"]) for seed in (1, 2)]
