#!/usr/bin/env python3
"""A 7B LLaVA on a GPU, this engine beside Hugging Face transformers + PEFT in one run: loading, training, answering.

    gpu.py --mcit build/release/bin/mcit --work DIR           # 30 GB of disk, a GPU with 40 GB, a torch with CUDA

Run with a Python that has torch, transformers, peft, safetensors and Pillow (requirements.txt); the engine takes its
CUDA library from that torch. The model is LLaVA-1.5-7B's shape with random weights in bfloat16 (make_tiny_llava.py),
so that nothing has to be downloaded: speed and memory do not depend on the values.

1. The folder is read once as plain bytes with the page cache dropped, then loaded by the engine likewise.
2. Both sides train LoRA (rank 128, alpha 256) and an expert mixture of 8 x 16 on the same records, batch 8, and answer
   the same questions. The losses of the first steps are printed side by side: in bfloat16 they agree to about 1 %.

Prints a table as Markdown and writes everything to --report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHAPE_7B = ["--vit-layers", "24", "--vit-dim", "1024", "--vit-heads", "16", "--image", "336", "--llm-layers", "32",
            "--llm-dim", "4096", "--llm-heads", "32", "--ffn", "11008", "--vocab", "32064"]
Report = dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mcit", type=Path, required=True, help="the engine")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model, records and reports")
    parser.add_argument("--report", type=Path, help="JSON of everything measured [WORK/gpu.json]")
    parser.add_argument("--shape", nargs=argparse.REMAINDER, default=SHAPE_7B, help="options of make_tiny_llava.py")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=240.0, help="no new measurement begins after this")
    return parser.parse_args()


def call(command: list[str], environment: dict[str, str]) -> None:
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-12:])
        raise RuntimeError(f"{' '.join(command[:3])} … failed with status {result.returncode}:\n{tail}")


def drop_page_cache() -> bool:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def read_seconds(folder: Path) -> float:
    begin = time.perf_counter()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            buffer = bytearray(1 << 24)
            while stream.readinto(buffer):
                pass
    return time.perf_counter() - begin


def main() -> int:
    args = parse_args()
    import torch  # only for its folder and the GPU's name

    started = time.perf_counter()
    model, report_file = args.work / "model", args.report or args.work / "gpu.json"
    libraries = str(Path(torch.__file__).parent / "lib")
    engine_env = {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    out: Report = {"gpu": torch.cuda.get_device_name(), "runs": {}}

    if not (args.work / "test.json").exists():
        call([sys.executable, str(HERE / "make_tiny_llava.py"), "--out", str(args.work), "--dtype", "bfloat16",
              "--device", "cuda", *args.shape], dict(os.environ))
    out["made_s"] = time.perf_counter() - started
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    out["folder_gb"] = size / 1e9
    out["cold"] = drop_page_cache()
    out["read_s"] = read_seconds(model)
    drop_page_cache()

    def run(name: str, engine: bool, strategy: str, *flags: str) -> None:
        if time.perf_counter() - started > args.seconds:
            out["runs"][name] = "left out: no time"
            return
        report = args.work / f"{name.replace(' ', '_')}.json"
        program = [str(args.mcit), "bench-step"] if engine else [sys.executable, str(HERE / "hf_peft_peer.py")]
        common = ["--model", str(model), "--data", str(args.work), "--strategy", strategy, "--steps", str(args.steps),
                  "--warmup", "2", "--batch", str(args.batch), "--rank", "128", "--alpha", "256", "--experts", "8",
                  "--eval-samples", "16", "--max-new", "16", "--fixed-len", "--device", "cuda", "--dtype", "bfloat16",
                  "--threads", "8", "--report", str(report)]
        begin = time.perf_counter()
        try:
            call([*program, *common, *flags], engine_env if engine else dict(os.environ))
            found = json.loads(report.read_text())
            found.get("eval", {}).pop("outputs", None)
            out["runs"][name] = found | {"wall_s": time.perf_counter() - begin}
        except RuntimeError as error:
            out["runs"][name] = str(error)
        report_file.write_text(json.dumps(out, indent=1))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)

    run("engine lora warm", True, "lora", "--vision-cache", "warm")  # the first load finds no page cached
    run("tuned lora", False, "lora", "--preset", "tuned")
    run("engine moe_lora warm", True, "moe_lora", "--vision-cache", "warm")
    run("tuned moe_lora", False, "moe_lora", "--preset", "tuned")
    run("engine lora cold", True, "lora", "--vision-cache", "cold")
    run("asrun lora", False, "lora", "--preset", "asrun")
    report_file.write_text(json.dumps(out, indent=1))

    print(f"\n{out['gpu']}; folder of {out['folder_gb']:.1f} GB, read in {out['read_s']:.1f} s"
          f"{'' if out['cold'] else ' (page cache not dropped)'}\n")
    print("| run | load s | training samples/s | answers/s | GPU peak MB | host peak MB | first losses |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, found in out["runs"].items():
        if isinstance(found, str):
            print(f"| {name} | {found} |")
            continue
        train, evaluation = found["train"], found.get("eval", {})
        losses = " ".join(f"{loss:.3f}" for loss in train["losses"][:3])
        print(f"| {name} | {found['load_s']:.1f} | {train['samples_per_s_cpu']:.2f} | "
              f"{evaluation.get('samples_per_s_cpu', 0.0):.2f} | {found['gpu_peak_mb']:.0f} | "
              f"{found.get('load_peak_rss_mb', train['peak_rss_mb']):.0f} | {losses} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
