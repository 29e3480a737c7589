"""Files of a fixture: JSON, safetensors shards, test pictures, and the seeds everything random comes from."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

Json = dict[str, Any]
Tensors = dict[str, torch.Tensor]

_NUMBER_LIST = re.compile(r"\[\s*(-?[\d.]+(?:e-?\d+)?(?:,\s*-?[\d.]+(?:e-?\d+)?)*)\s*\]")


def write_json(path: Path, data: Any) -> None:
    """Indented UTF-8, a list of numbers on one line."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    text = _NUMBER_LIST.sub(lambda found: "[" + re.sub(r",\s+", ", ", found.group(1)) + "]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def named_generator(seed: int, name: str) -> torch.Generator:
    """Random numbers that depend on a tensor's name, not on when it is made."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))


def write_shards(tensors: Tensors, folder: Path, num_shards: int = 2) -> None:
    """Numbered safetensors shards of about equal size, filled in order of name, with the usual index."""
    sizes = {name: tensors[name].numel() * tensors[name].element_size() for name in sorted(tensors)}
    total = sum(sizes.values())
    shards: list[Tensors] = [{} for _ in range(num_shards)]
    before = 0
    for name, size in sizes.items():
        shards[before * num_shards // total][name] = tensors[name].contiguous()
        before += size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{num_shards:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def make_picture(width: int, height: int, seed: int) -> Image.Image:
    """Gradients, hard edges and noise, so that a wrong resize filter shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    gradient = [255.0 * columns / max(width - 1, 1), 127.5 + 127.5 * np.sin(rows / 2.3 + columns / 5.1),
                255.0 * rows / max(height - 1, 1)]
    pixels = np.stack(gradient, axis=-1)
    pixels[height // 5 : height // 2, width // 6 : width // 3] = (230, 20, 30)
    radius = 0.2 * min(width, height)
    pixels[(rows - 0.6 * height) ** 2 + (columns - 0.7 * width) ** 2 < radius**2] = (15, 40, 220)
    pixels[:, width // 2] = (0, 255, 0)
    pixels += np.random.default_rng(seed).normal(0.0, 12.0, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def max_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.double() - right.double()).abs().max())


def rounded(value: float, digits: int = 4) -> float:
    """To a few significant digits, for JSON that is read by people."""
    return float(f"{value:.{digits}g}")
