"""What `transformers` and PEFT compute from a tiny checkpoint: the numbers an engine has to reproduce."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from family import Family, Generative, TwoTowers
from fixture_files import Json, Tensors, max_difference, rounded
from PIL import Image

NUM_GENERATED = 12
TRAIN_STEPS = 3
MIN_GREEDY_GAP = 0.004  # hundreds of times the float32 noise in the logits
MIN_DISTINCT_IDS = 4
OPTIMIZER = {"optimizer": "AdamW", "lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-08, "weight_decay": 0.01,
             "steps": TRAIN_STEPS, "grad_clip": None}


class UnusableSeed(Exception):
    """The random model of this seed makes a poor fixture; try the next one."""


def compute(family: Family, folder: Path) -> tuple[Json, Tensors]:
    """The family's part of expected.json, and all of expected.safetensors."""
    if isinstance(family, Generative):
        return _compute_generative(family, folder)
    assert isinstance(family, TwoTowers)
    return _compute_towers(family, folder)


def check_usable(report: Json, tensors: Tensors) -> None:
    """Rejects a model whose greedy continuations repeat themselves or are too close a call."""
    if report.get("smallest_greedy_gap", math.inf) < MIN_GREEDY_GAP:
        raise UnusableSeed(f"two best logits only {report['smallest_greedy_gap']} apart")
    for name, ids in tensors.items():
        if name.endswith("generated_ids") and any(len(set(row)) < MIN_DISTINCT_IDS for row in ids.tolist()):
            raise UnusableSeed(f"{name} repeats itself")


def first_inputs(family: Family, checkpoint: Path, folder: Path, backend: str) -> Tensors:
    """The inputs behind the stored `logits`, pixels made by one of the two backends."""
    processor = family.load_processor(checkpoint, backend)
    if isinstance(family, TwoTowers):
        return family.inputs(processor, folder)
    assert isinstance(family, Generative)
    sample = family.samples["a"]
    return family.encode(processor, _open_pictures(family, folder)[:1], [family.prompt(sample.question)])


@torch.no_grad()
def logits_of(family: Family, model: torch.nn.Module, inputs: Tensors) -> torch.Tensor:
    """Logits; a decoder's positions count unmasked tokens, as `generate` counts them."""
    if isinstance(family, TwoTowers):
        return _tower_outputs(model, inputs)["logits"]
    positions = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    return model(**inputs, position_ids=positions, use_cache=False).logits


# ---------------------------------------------------------------------- decoders


def _compute_generative(family: Generative, folder: Path) -> tuple[Json, Tensors]:
    checkpoint = folder / "checkpoint"
    processor = family.load_processor(checkpoint, "pil")
    tokenizer = family.tokenizer_of(processor)
    model = family.load_model(checkpoint)
    forbidden = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    pictures = _open_pictures(family, folder)
    prompts = [family.prompt(sample.question) for sample in family.samples.values()]

    # Sample a alone: inputs, probes, logits, loss on its answer, greedy continuation.
    inputs = family.encode(processor, pictures[:1], prompts[:1])
    tensors: Tensors = {f"input.{name}": value for name, value in inputs.items()}
    tensors |= _with_probes(family, model, inputs)
    full = family.encode(processor, pictures[:1], [prompts[0] + family.answer_text(family.samples["a"].answer)])
    labels = _answer_labels(inputs["input_ids"], full["input_ids"])
    tensors |= {"train_input.input_ids": full["input_ids"], "train_input.labels": labels}
    tensors["generated_ids"], gap = _greedy(family, model, inputs, forbidden)

    # Both samples, padded on the left. Logits at padding are stored as zero: they mean nothing.
    pair = family.encode(processor, pictures, prompts)
    tensors |= {f"batch_input.{name}": value for name, value in pair.items()}
    tensors["batch_logits"] = logits_of(family, model, pair) * pair["attention_mask"].bool()[..., None]
    tensors["batch_generated_ids"], pair_gap = _greedy(family, model, pair, forbidden)

    lora, lora_tensors, lora_gap = _decoder_lora(family, folder, inputs, full, labels, forbidden)
    tensors |= lora_tensors
    report = {
        "samples": {key: _sample_report(family, processor, key, pictures[place : place + 1])
                    for place, key in enumerate(family.samples)},
        "loss": _loss(model, full, labels), "lora": lora, "smallest_greedy_gap": rounded(min(gap, pair_gap, lora_gap)),
        "generated_ids": tensors["generated_ids"][0].tolist(),
        "generated_text": tokenizer.decode(tensors["generated_ids"][0], skip_special_tokens=False),
    }
    return report, tensors


def _decoder_lora(family: Generative, folder: Path, inputs: Tensors, full: Tensors, labels: torch.Tensor,
                  forbidden: set[int]) -> tuple[Json, Tensors, float]:
    """The same with the adapter: applied, generating, training, and folded into the weights."""
    checkpoint, adapter = folder / "checkpoint", folder / "adapter"
    model = peft.PeftModel.from_pretrained(family.load_model(checkpoint), adapter).eval()
    tensors: Tensors = {"lora.logits": logits_of(family, model, inputs)}
    tensors["lora.generated_ids"], gap = _greedy(family, model, inputs, forbidden, check_generate=False)
    loss = _loss(model, full, labels)
    trainable = peft.PeftModel.from_pretrained(family.load_model(checkpoint), adapter, is_trainable=True).eval()
    losses, gradients = _train(trainable, full, {"labels": labels})
    tensors |= {f"lora.grad.{_adapter_key(name)}": value for name, value in gradients.items()}
    merged = logits_of(family, model.merge_and_unload(), inputs)
    report = {
        "loss": loss, "generated_ids": tensors["lora.generated_ids"][0].tolist(), "train_losses": losses,
        "train_settings": OPTIMIZER, "merged_vs_unmerged": rounded(max_difference(merged, tensors["lora.logits"])),
        "num_trainable_tensors": len(gradients),
    }
    return report, tensors, gap


def _open_pictures(family: Generative, folder: Path) -> list[Image.Image]:
    """The samples' pictures, none for a family without."""
    return [Image.open(folder / sample.picture) for sample in family.samples.values() if sample.picture]


def _sample_report(family: Generative, processor: Any, key: str, pictures: list[Image.Image]) -> Json:
    sample = family.samples[key]
    prompt, messages = family.prompt(sample.question), family.messages(sample.question)
    if family.chat_template:
        rendered = family.tokenizer_of(processor).apply_chat_template(
            messages, chat_template=family.chat_template, tokenize=False, add_generation_prompt=True
        )
        if rendered != prompt:
            raise RuntimeError(f"{family.name}: the chat template gives {rendered!r}, not {prompt!r}")
    return {
        **({"image": sample.picture} if sample.picture else {}),
        "question": sample.question, "answer": sample.answer, "messages": messages,
        "prompt": prompt, "answer_text": family.answer_text(sample.answer),
        "input_ids": family.encode(processor, pictures, [prompt])["input_ids"][0].tolist(),
    }


@torch.no_grad()
def _greedy(family: Generative, model: torch.nn.Module, inputs: Tensors, forbidden: set[int],
            check_generate: bool = True) -> tuple[torch.Tensor, float]:
    """Greedy tokens by full recomputation, no stop at EOS, and the smallest gap between the two best logits."""
    start, rows, gap = inputs, [], math.inf
    for _ in range(NUM_GENERATED):
        last = logits_of(family, model, inputs)[:, -1]
        best = last.topk(2, dim=-1).values
        gap = min(gap, float((best[:, 0] - best[:, 1]).min()))
        tokens = last.argmax(dim=-1, keepdim=True)
        if any(int(token) in forbidden for token in tokens):
            raise UnusableSeed("a special token was generated")
        rows.append(tokens)
        grown = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        inputs = {**inputs, **{name: torch.cat([inputs[name], new], dim=1) for name, new in grown.items()}}
    generated = torch.cat(rows, dim=1)
    if check_generate and not torch.equal(generated, _cached_generate(model, start)):
        raise RuntimeError(f"{family.name}: generate() with a cache and the plain loop disagree")
    return generated, gap


def _cached_generate(model: torch.nn.Module, inputs: Tensors) -> torch.Tensor:
    config = transformers.GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=NUM_GENERATED, use_cache=True, pad_token_id=0
    )
    # InstructBLIP hands over to its decoder, which has settings of its own.
    holders = [part.generation_config for part in model.modules() if getattr(part, "generation_config", None)]
    ends = [holder.eos_token_id for holder in holders]
    try:
        for holder in holders:
            holder.eos_token_id = None
        return model.generate(**inputs, generation_config=config)[:, -NUM_GENERATED:]
    finally:
        for holder, end in zip(holders, ends, strict=True):
            holder.eos_token_id = end


@torch.no_grad()
def _with_probes(family: Generative, model: torch.nn.Module, inputs: Tensors) -> Tensors:
    """Logits, and values inside the model that localise a difference."""
    captured: Tensors = {}

    def keep(name: str, output: Any) -> None:
        while not isinstance(output, torch.Tensor):
            output = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        captured[f"probe.{name}"] = output.detach().clone()

    handles = [
        model.get_submodule(path).register_forward_hook(lambda _m, _a, output, name=name: keep(name, output))
        for name, path in family.probes.items()
    ]
    if "projected" in family.probes:  # a picture's features go in, and are merged with the text's embeddings
        handles.append(model.get_submodule(family.probes["projected"]).register_forward_pre_hook(
            lambda _m, args: keep("projector_input", args[0])))
        decoder = family.probes["decoder_layer_0"].removesuffix(".layers.0")
        handles.append(model.get_submodule(decoder).register_forward_pre_hook(
            lambda _m, _a, kwargs: keep("inputs_embeds", kwargs["inputs_embeds"]), with_kwargs=True))
    try:
        captured["logits"] = logits_of(family, model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return captured


def _answer_labels(prompt_ids: torch.Tensor, full_ids: torch.Tensor) -> torch.Tensor:
    length = prompt_ids.shape[1]
    if not torch.equal(full_ids[:, :length], prompt_ids):
        raise RuntimeError("the prompt's tokens are not a prefix of those of prompt + answer")
    labels = full_ids.clone()
    labels[:, :length] = -100
    return labels


@torch.no_grad()
def _loss(model: torch.nn.Module, full: Tensors, labels: torch.Tensor) -> float:
    return float(model(**full, labels=labels, use_cache=False).loss)


def _train(model: torch.nn.Module, inputs: Tensors, target: Json) -> tuple[list[float], Tensors]:
    """The loss before each AdamW step and after the last, and the first step's gradients."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=OPTIMIZER["lr"], betas=tuple(OPTIMIZER["betas"]), eps=OPTIMIZER["eps"],
        weight_decay=OPTIMIZER["weight_decay"], foreach=False,
    )
    losses: list[float] = []
    gradients: Tensors = {}
    for step in range(TRAIN_STEPS + 1):
        loss = model(**inputs, **target).loss
        losses.append(float(loss.detach()))
        if step == TRAIN_STEPS:
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = gradients or {n: p.grad.detach().clone() for n, p in parameters.items() if p.grad is not None}
        optimizer.step()
    return losses, gradients


def _adapter_key(parameter: str) -> str:
    """A parameter's name in adapter_model.safetensors."""
    return parameter.replace(".default", "").replace(".modules_to_save", "")


# ---------------------------------------------------------------------- two towers


def _compute_towers(family: TwoTowers, folder: Path) -> tuple[Json, Tensors]:
    checkpoint, adapter = folder / "checkpoint", folder / "adapter"
    inputs = family.inputs(family.load_processor(checkpoint, "pil"), folder)
    tensors: Tensors = {f"input.{name}": value for name, value in inputs.items()}
    tensors |= _tower_outputs(family.load_model(checkpoint), inputs)
    adapted = peft.PeftModel.from_pretrained(family.load_model(checkpoint), adapter).eval()
    with_lora = _tower_outputs(adapted, inputs)
    tensors |= {f"lora.{name}": value for name, value in with_lora.items() if not name.startswith("probe.")}
    trainable = peft.PeftModel.from_pretrained(family.load_model(checkpoint), adapter, is_trainable=True).eval()
    losses, gradients = _train(trainable, inputs, {"return_loss": True})
    tensors |= {f"lora.grad.{_adapter_key(name)}": value for name, value in gradients.items()}
    report: Json = {
        "samples": {
            "texts": list(family.texts),
            "images": ["image_a.png", "image_b.png", "image_a.png mirrored left to right"],
            "input_ids": inputs["input_ids"].tolist(),
        },
        "loss": float(tensors["loss"]),
        "lora": {"loss": float(tensors["lora.loss"]), "train_losses": losses, "train_settings": OPTIMIZER,
                 "num_trainable_tensors": len(gradients)},
    }
    return report, tensors


@torch.no_grad()
def _tower_outputs(model: torch.nn.Module, inputs: Tensors) -> Tensors:
    output = model(**inputs, return_loss=True)
    return {
        "logits": output.logits_per_image, "text_embeds": output.text_embeds, "image_embeds": output.image_embeds,
        "probe.text_last_hidden": output.text_model_output.last_hidden_state,
        "probe.vision_last_hidden": output.vision_model_output.last_hidden_state, "loss": output.loss,
    }
