"""How exact a result has to be, and how far the logits move when one detail is wrong."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from family import Family, Generative
from fixture_files import Json, Tensors, max_difference, read_json, rounded, write_json
from reference import first_inputs, logits_of

MIN_ATOL = 2e-5
NEAREST, BILINEAR = 0, 2  # Pillow's numbers


def diagnose(family: Family, folder: Path, tensors: Tensors) -> Json:
    """The parts "precision" and "sensitivity" of expected.json."""
    checkpoint = folder / "checkpoint"
    inputs = first_inputs(family, checkpoint, folder, "pil")
    reference = tensors["logits"]
    model = family.load_model(checkpoint)

    def moved(wrong_model: torch.nn.Module, wrong_inputs: Tensors) -> float:
        return rounded(max_difference(logits_of(family, wrong_model, wrong_inputs), reference))

    sensitivity: Json = {}
    for label, change in family.config_mistakes().items():
        with _edited_copy(checkpoint, "config.json", change) as edited:
            sensitivity[label] = moved(family.load_model(edited), inputs)
    if isinstance(family, Generative):
        layer = model.get_submodule(family.probes["decoder_layer_0"])
        decoder_code, heads = sys.modules[type(layer).__module__], layer.self_attn.config.num_key_value_heads
        with mock.patch.object(decoder_code, "apply_rotary_pos_emb", _interleaved_rotary):
            sensitivity["rope: interleaved pairs"] = moved(model, inputs)
        if 1 < heads < layer.self_attn.config.num_attention_heads:
            with mock.patch.object(decoder_code, "repeat_kv", lambda states, times: states.repeat(1, times, 1, 1)):
                sensitivity["attention: key/value heads tiled"] = moved(model, inputs)  # 0 1 0 1, not 0 0 1 1
    if family.picture_sizes:
        for label, pixels in _wrong_pixels(family, folder, inputs).items():
            sensitivity[f"pixels: {label}"] = moved(model, {**inputs, "pixel_values": pixels})
    for label, wrong in family.wrong_inputs(inputs).items():
        sensitivity[label] = moved(model, wrong)
    if isinstance(family, Generative):
        sensitivity["batch: padding attended to"] = _padding_attended_to(family, model, tensors)
    return {"precision": _precision(family, checkpoint, inputs, reference), "sensitivity": sensitivity}


def _precision(family: Family, checkpoint: Path, inputs: Tensors, reference: torch.Tensor) -> Json:
    doubled = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    exact = logits_of(family, family.load_model(checkpoint, dtype=torch.float64), doubled)
    sdpa = logits_of(family, family.load_model(checkpoint, attention="sdpa"), inputs)
    rounding = max_difference(reference, exact)
    return {
        "logits_std": rounded(float(reference.std())), "fp32_eager_vs_fp64": rounded(rounding),
        "fp32_eager_vs_sdpa": rounded(max_difference(reference, sdpa)),
        "suggested_atol": rounded(max(MIN_ATOL, 5 * rounding), 2),
    }


@contextlib.contextmanager
def _edited_copy(checkpoint: Path, file: str, change: Callable[[Json], None]) -> Iterator[Path]:
    """A temporary copy of the checkpoint, one of whose JSON files went through `change`."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for item in checkpoint.iterdir():
            if item.name != file:
                (copy / item.name).symlink_to(item.resolve())
        data = read_json(checkpoint / file)
        change(data)
        write_json(copy / file, data)
        yield copy


def _interleaved_rotary(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                        unsqueeze_dim: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """RoPE on neighbouring pairs, the GPT-J way, which is wrong for Hugging Face weights."""
    half = cos.shape[-1] // 2
    cos, sin = (t[..., :half].repeat_interleave(2, dim=-1).unsqueeze(unsqueeze_dim) for t in (cos, sin))

    def rotated(x: torch.Tensor) -> torch.Tensor:
        return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)

    return q * cos + rotated(q) * sin, k * cos + rotated(k) * sin


def _wrong_pixels(family: Family, folder: Path, inputs: Tensors) -> Tensors:
    checkpoint = folder / "checkpoint"

    def resampled(filter_number: int) -> torch.Tensor:
        change: Callable[[Json], None] = lambda settings: settings.update(resample=filter_number)
        with _edited_copy(checkpoint, "preprocessor_config.json", change) as edited:
            return first_inputs(family, edited, folder, "pil")["pixel_values"]

    return {
        "channels as BGR": inputs["pixel_values"].flip(-3),
        "resample bilinear": resampled(BILINEAR),
        "resample nearest": resampled(NEAREST),
        "torchvision backend instead of Pillow":
            first_inputs(family, checkpoint, folder, "torchvision")["pixel_values"],
    }


def _padding_attended_to(family: Family, model: torch.nn.Module, tensors: Tensors) -> float:
    prefix = "batch_input."
    batch = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    mask = batch["attention_mask"].bool()
    logits = logits_of(family, model, {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])})
    return rounded(max_difference(logits[mask], tensors["batch_logits"][mask]))
