#!/usr/bin/env python3
"""Make tiny Hugging Face checkpoints together with the numbers `transformers` and PEFT compute from them.

    $(python3 benchmarks/speed/peer_env.py) tests/parity/make_fixtures.py --verify          # recompute and compare
    $(python3 benchmarks/speed/peer_env.py) tests/parity/make_fixtures.py --out DIR llava   # write a family anew

writes, for each of the families (all of families.py, where none is named),

    DIR/<family>/
      checkpoint/            config.json, tokenizer files, preprocessor_config.json, two safetensors shards with index
      adapter/               a PEFT LoRA adapter
      image_a.png, image_b.png   none for a decoder alone
      tokenizer_cases.json   text -> ids -> text for awkward strings
      expected.json          prompts, ids, losses, tolerances, sensitivity of the logits
      expected.safetensors   inputs, probes inside the model, logits, gradients

The weights are random, seeded by tensor name, so the same package versions (benchmarks/speed/requirements.txt) give
the same bytes; --seed makes others. Under "sensitivity", expected.json says how far the logits move when one detail is
wrong: a result that misses by one of those amounts names its own fault.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import peft
import PIL
import tokenizers
import torch
import transformers
from checkpoints import older_adapter_keys, write_inputs
from families import FAMILIES
from family import Family
from fixture_files import Json, max_difference, read_json, write_json
from reference import UnusableSeed, check_usable, compute
from safetensors.torch import load_file, save_file
from sensitivity import diagnose
from tiny_tokenizers import tokenizer_cases

SCHEMA_VERSION = 1
TRIES = 40
VERIFY_RTOL = 2e-5  # of each tensor's largest value


def make_fixture(family: Family, out: Path, first_seed: int) -> None:
    """Writes one folder, with the first seed from there on whose random model is of use."""
    target, folder = out / family.name, out / f".{family.name}.partial"
    if target.exists() and not (target / "expected.json").exists():
        raise SystemExit(f"{target} exists and is not a fixture; not overwriting it")
    for seed in range(first_seed, first_seed + TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        write_inputs(family, folder, seed)
        try:
            report, tensors = compute(family, folder)
            check_usable(report, tensors)
            break
        except UnusableSeed as reason:
            print(f"{family.name}: seed {seed} rejected: {reason}")
    else:
        raise SystemExit(f"{family.name}: no usable seed in {TRIES} tries")
    report |= diagnose(family, folder, tensors)
    write_json(folder / "tokenizer_cases.json", _tokenizer_cases(family, folder))
    tensors = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "expected.safetensors")
    write_json(folder / "expected.json", {
        "schema": SCHEMA_VERSION, "family": family.name, "model_class": family.model_class, "seed": seed,
        "weights_dtype": _dtype_name(family.weights_dtype),
        "computed_in": "float32 on the CPU, attention 'eager', one thread; pixels by the Pillow backend",
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers, peft, PIL, np)},
        **report,
        "adapter_keys_before_4.52": older_adapter_keys(family, folder / "adapter"),
        "tensors": {name: f"{_dtype_name(value.dtype)}{list(value.shape)}" for name, value in sorted(tensors.items())},
    })
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{family.name}: {size / 1e6:.2f} MB, seed {seed}")


def verify_fixture(family: Family, out: Path) -> bool:
    """Recomputes a fixture from its files; says what differs."""
    folder = out / family.name
    stored, fresh = load_file(folder / "expected.safetensors"), compute(family, folder)[1]
    failures = [f"{name} is in one of the two only" for name in sorted(stored.keys() ^ fresh.keys())]
    worst_name, worst = "none", 0.0
    for name in sorted(stored.keys() & fresh.keys()):
        if not stored[name].is_floating_point():
            failures += [] if torch.equal(stored[name], fresh[name]) else [f"{name} differs"]
            continue
        relative = max_difference(stored[name], fresh[name]) / max(1.0, float(stored[name].abs().max()))
        if not relative <= VERIFY_RTOL:
            failures.append(f"{name} differs by {relative:.3g} of its largest value")
        if relative >= worst:
            worst_name, worst = name, relative
    if _tokenizer_cases(family, folder) != read_json(folder / "tokenizer_cases.json"):
        failures.append("tokenizer cases differ")
    print(f"{family.name}: {'FAILED' if failures else 'ok'}, {len(stored)} tensors, worst {worst_name} {worst:.2g}")
    print(*(f"    {line}" for line in failures), sep="\n", end="\n" if failures else "")
    return not failures


def _tokenizer_cases(family: Family, folder: Path) -> Json:
    return {name: tokenizer_cases(path) for name, path in family.tokenizer_folders(folder / "checkpoint").items()}


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent,
                        help="folder with one subfolder per family (default: the committed ones)")
    parser.add_argument("family", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--seed", type=int, help="first seed to try (default: the committed fixtures' own)")
    parser.add_argument("--verify", action="store_true", help="write nothing; recompute and compare")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.family) - set(FAMILIES)):
        parser.error(f"no family is called {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    chosen = [FAMILIES[name] for name in args.family or FAMILIES]
    if args.verify:
        return 0 if all([verify_fixture(family, args.out) for family in chosen]) else 1
    for family in chosen:
        make_fixture(family, args.out, family.first_seed if args.seed is None else args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
