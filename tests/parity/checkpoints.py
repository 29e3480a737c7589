"""From a family to files: seeded weights in shards, an adapter, pictures."""

from __future__ import annotations

import math
from pathlib import Path

import peft
import torch
import transformers
from family import Family, Generative, load_tokenizer
from fixture_files import Json, Tensors, make_picture, named_generator, read_json, write_json, write_shards
from safetensors import safe_open

PEFT_PREFIX = "base_model.model."
TIED_SCALE = 6.0  # an embedding that also has to spread the logits


def initial_value(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """A seeded value, scaled so that a mistake anywhere in the model reaches the logits.

    Embeddings are small, as in trained models: the first normalisation then sees little variance, and a wrong epsilon
    shows.
    """
    noise = torch.randn(tuple(shape), generator=named_generator(seed, name))
    fan_in = math.prod(shape[1:])
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "logit_scale":
        return torch.full(shape, 2.6592)  # ln(1 / 0.07), CLIP's starting point
    if leaf == "logit_bias":
        return torch.full(shape, -3.5)
    if leaf == "weight" and ("norm" in name.lower() or "layrnorm" in name):
        return 1.0 + 0.2 * noise
    if "patch_embedding" in name:
        return 0.1 * noise / math.sqrt(fan_in)
    if leaf.endswith("bias"):
        return 0.2 * noise
    if "embed" in name:
        return 0.05 * noise
    if not leaf.endswith("weight"):
        return 0.5 * noise  # query_tokens, image_newline, probe
    return 1.25 * noise / math.sqrt(fan_in)


def write_checkpoint(family: Family, checkpoint: Path, seed: int) -> None:
    checkpoint.mkdir(parents=True, exist_ok=True)
    family.write_tokenizer(checkpoint)
    write_json(checkpoint / "config.json", family.config(checkpoint))
    family.write_processor_files(checkpoint)
    if isinstance(family, Generative):
        family.write_generation_files(checkpoint)
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    model = getattr(transformers, family.model_class)(config)
    head = model.get_output_embeddings()
    state = model.state_dict(keep_vars=True)
    tied = head is not None and sum(parameter is head.weight for parameter in state.values()) == 2
    special_ids = sorted(load_tokenizer(checkpoint).get_added_tokens_decoder())
    tensors: Tensors = {}
    for name, parameter in state.items():
        if tied and name == "lm_head.weight":
            continue  # published files leave it out
        published = family.published_name(name)
        value = initial_value(published, parameter.shape, seed)
        if head is not None and parameter is head.weight:
            if tied:
                value *= TIED_SCALE
            value[special_ids] *= 0.25  # keeps greedy decoding away from special tokens
        tensors[published] = value.to(family.weights_dtype)
    write_shards(tensors, checkpoint)


def write_adapter(family: Family, checkpoint: Path, adapter: Path, seed: int) -> None:
    """A PEFT adapter with seeded values in every matrix; PEFT itself starts B at zero."""
    model = peft.get_peft_model(family.load_model(checkpoint), family.lora_config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=named_generator(seed, name))
            if "lora_" in name:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))
            elif "modules_to_save" in name:
                parameter.add_(0.05 * noise)
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)
    settings: Json = read_json(adapter / "adapter_config.json")
    settings["base_model_name_or_path"] = "../checkpoint"
    for key in ("target_modules", "modules_to_save"):
        if isinstance(settings.get(key), list):
            settings[key] = sorted(settings[key])
    write_json(adapter / "adapter_config.json", dict(sorted(settings.items())))


def write_inputs(family: Family, folder: Path, seed: int) -> None:
    """Everything that the expected numbers are computed from."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, size) in enumerate(family.picture_sizes.items(), start=1):
        make_picture(*size, seed=number).save(folder / name, optimize=True)
    write_checkpoint(family, folder / "checkpoint", seed)
    write_adapter(family, folder / "checkpoint", folder / "adapter", seed)


def older_adapter_keys(family: Family, adapter: Path) -> dict[str, str]:
    """Each key of the adapter -> the key that transformers before 4.52 would have given it."""
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        keys = sorted(file.keys())
    return {key: PEFT_PREFIX + family.published_name(key.removeprefix(PEFT_PREFIX)) for key in keys}
