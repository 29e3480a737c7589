#!/usr/bin/env python3
"""Time what a user of Hugging Face transformers + PEFT gets on a LLaVA folder and CoIN-style data.

    hf_peft_peer.py --model tiny/model --data tiny --strategy lora --preset tuned --steps 6 --report peer.json

Presets:
  asrun   as the published training scripts are configured: gradient checkpointing, LoRA dropout 0.05, evaluation by
          generate() at batch 1 (LoRA merged first, as LLaVA's loader does)
  tuned   the best an informed user gets from the same libraries without new kernels: no checkpointing, no dropout,
          fused AdamW, evaluation in batches of 8 sorted by length
  exact   tuned with batch-1 evaluation of the unmerged adapter; the one to compare losses and answers with

In every preset pictures are decoded and the frozen vision tower runs at each step, as in the scripts.
`--vision-cache warm` takes both out of the timed part, `--moe-impl fused` evaluates the experts as one low-rank
product: with both, `tuned` is the strongest form of the peer that can be written in PyTorch. Neither is what users run.

Optimisation, all presets: AdamW (betas 0.9 0.999, eps 1e-8, no weight decay) on the adapter (--lr) and the projector
(--projector-lr), one global gradient norm clipped at 1. With N = warmup + steps and w = max(1, ceil(0.03 N)), step
s = 0 … N-1 uses the learning rates times s/w below w, else times (1 + cos(pi (s - w) / (N - w))) / 2. Records are
taken in file order, --batch at a time, wrapping round. float32, prompt and labels as in sample_format.py, pictures
padded to a square with the mean colour.

Adapter files (--dump, --adapter-in): `<module>.lora_A.weight` [rank, in] and `<module>.lora_B.weight` [out, rank] for
each decoder linear, expert e of an expert mixture in rows (columns) e rank/experts …, plus `<module>.router.weight`
[experts, in]; and the projector's tensors. Modules are named as in the folder's safetensors.

The report is one JSON object. Times are process CPU seconds, meant for one thread; on a GPU (--device cuda) they are
seconds on the wall with its queue empty at both ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import peft
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from sample_format import answer_text, prompt_text
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

Tensors = dict[str, torch.Tensor]

PRESETS: dict[str, dict[str, Any]] = {
    "asrun": {"checkpointing": True, "dropout": 0.05, "fused_adamw": False, "eval_batch": 1, "merge": True},
    "tuned": {"checkpointing": False, "dropout": 0.0, "fused_adamw": True, "eval_batch": 8, "merge": True},
    "exact": {"checkpointing": False, "dropout": 0.0, "fused_adamw": True, "eval_batch": 1, "merge": False},
}
WARMUP_RATIO = 0.03
CLIP_NORM = 1.0
NO_LABEL = -100
DUMPED_BATCHES = 4


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of the LLaVA model")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, test.json, images/")
    parser.add_argument("--strategy", choices=["lora", "moe_lora"], default="lora")
    parser.add_argument("--preset", choices=PRESETS, default="tuned")
    parser.add_argument("--steps", type=int, default=6, help="timed training steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them; they train, but are not timed")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16, help="over all experts, each of which has rank/experts")
    parser.add_argument("--alpha", type=float, help="scale is alpha / rank (default 2 rank)")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--moe-impl", choices=["loop", "fused"], default="loop", help="loop as in CoIN and MCITlib")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--projector-lr", type=float, default=2e-5)
    parser.add_argument("--vision-cache", choices=["cold", "warm"], default="cold")
    parser.add_argument("--eval-samples", type=int, default=16, help="0 skips the evaluation")
    parser.add_argument("--max-new", type=int, default=16, help="tokens to generate at most")
    parser.add_argument("--fixed-len", action="store_true", help="forbid EOS: always --max-new tokens")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the frozen weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapter-in", type=Path, help="initial adapter")
    parser.add_argument("--dump", type=Path, help="folder for initial adapter, first batches, losses, answers")
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    if args.rank % args.experts:
        parser.error(f"--rank {args.rank} is not a multiple of --experts {args.experts}")
    args.alpha = 2.0 * args.rank if args.alpha is None else args.alpha
    return args


class Phases:
    """CPU seconds by name. Phases may nest: "data" contains "image" and "tokenize"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin

    def report(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in self.seconds.items()}


def seconds_spent(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def gemm_gflops(rows: int = 832, inner: int = 512, columns: int = 1376, repeats: int = 40) -> float:
    """Best rate of a hot matrix product of the shape of the tiny model's MLP: the roof both engines work under."""
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    best = math.inf
    for _ in range(repeats):
        begin = time.process_time()
        torch.mm(left, right)
        best = min(best, time.process_time() - begin)
    return 2e-9 * rows * inner * columns / best


class MoELoRALinear(nn.Module):
    """CoIN's expert mixture at one linear: y + scale sum_e softmax(router x)_e B_e A_e drop(x)."""

    def __init__(self, base: nn.Linear, rank: int, experts: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base, self.experts, self.scale = base, experts, alpha / rank
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.router = nn.Linear(base.in_features, experts, bias=False)
        self.A = nn.ModuleList(nn.Linear(base.in_features, rank // experts, bias=False) for _ in range(experts))
        self.B = nn.ModuleList(nn.Linear(rank // experts, base.out_features, bias=False) for _ in range(experts))
        for layer in self.A:
            nn.init.normal_(layer.weight, std=0.01)
        for layer in self.B:
            nn.init.zeros_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, gate = self.base(x), torch.softmax(self.router(x), dim=-1)
        for e in range(self.experts):
            y = y + self.B[e](self.A[e](self.dropout(x))) * self.scale * gate[..., e].unsqueeze(-1)
        return y


class FusedMoELoRALinear(MoELoRALinear):
    """The same function as one low-rank product with a gated middle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.softmax(self.router(x), dim=-1) * self.scale
        inner = F.linear(self.dropout(x), torch.cat([layer.weight for layer in self.A]))
        inner = (inner.unflatten(-1, (self.experts, -1)) * gate.unsqueeze(-1)).flatten(-2)
        return self.base(x) + F.linear(inner, torch.cat([layer.weight for layer in self.B], dim=1))


class Peer:
    """The model with its adapter, and the records as tensors."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.preset, self.phases = args, PRESETS[args.preset], Phases()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
        self.processor = CLIPImageProcessorPil.from_pretrained(args.model)
        self.core = transformers.LlavaForConditionalGeneration.from_pretrained(
            args.model, dtype=getattr(torch, args.dtype), device_map=None if args.device == "cpu" else args.device)
        self.image_tokens = self.core.config.image_seq_length
        self.features: Tensors = {}
        self.core.requires_grad_(False)
        self.model = self._add_adapter()
        self.projector = list(self.core.model.multi_modal_projector.parameters())
        for parameter in self.projector:
            parameter.requires_grad_(True)
        known = {id(p) for p in self.projector}
        self.adapter = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        if args.adapter_in:
            self.load_adapter(load_file(args.adapter_in))
        if self.preset["checkpointing"]:
            self.core.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self.core.enable_input_require_grads()
            self.core.model.vision_tower.gradient_checkpointing_disable()  # frozen: nothing to recompute for

    def _linears(self) -> list[str]:
        """Decoder linears: q, k, v, o, gate, up, down of each block."""
        modules = self.core.named_modules()
        return [n for n, m in modules if isinstance(m, nn.Linear) and "language_model" in n and "lm_head" not in n]

    def _add_adapter(self) -> nn.Module:
        args, names = self.args, self._linears()
        if args.strategy == "lora":
            config = peft.LoraConfig(r=args.rank, lora_alpha=args.alpha, lora_dropout=self.preset["dropout"],
                                     target_modules=names, bias="none")
            return peft.get_peft_model(self.core, config, autocast_adapter_dtype=False)
        kind = FusedMoELoRALinear if args.moe_impl == "fused" else MoELoRALinear
        for name in names:
            parent, leaf = name.rsplit(".", 1)
            base = self.core.get_submodule(name)
            mixture = kind(base, args.rank, args.experts, args.alpha, self.preset["dropout"])
            mixture = mixture.to(base.weight.device, base.weight.dtype)
            setattr(self.core.get_submodule(parent), leaf, mixture)
        return self.core

    # ------------------------------------------------------------------ adapter files

    def _stored_tensors(self) -> dict[str, tuple[list[nn.Parameter], int]]:
        """Name in an adapter file -> the parameters it concatenates, and along which dimension."""
        stored: dict[str, tuple[list[nn.Parameter], int]] = {}
        for name, module in self.core.named_modules():
            # The folder has the names of transformers before 4.52: language_model.model.layers, without "model." in front.
            path = name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
            if isinstance(module, MoELoRALinear):
                stored[f"{path}.lora_A.weight"] = ([layer.weight for layer in module.A], 0)
                stored[f"{path}.lora_B.weight"] = ([layer.weight for layer in module.B], 1)
                stored[f"{path}.router.weight"] = ([module.router.weight], 0)
            elif isinstance(module, peft.tuners.lora.Linear):
                stored[f"{path}.lora_A.weight"] = ([module.lora_A["default"].weight], 0)
                stored[f"{path}.lora_B.weight"] = ([module.lora_B["default"].weight], 0)
        for name, parameter in self.core.model.multi_modal_projector.named_parameters():
            stored[f"multi_modal_projector.{name}"] = ([parameter], 0)
        return stored

    def adapter_tensors(self) -> Tensors:
        stored = self._stored_tensors()
        return {n: torch.cat([p.detach() for p in parts], dim).contiguous() for n, (parts, dim) in stored.items()}

    def load_adapter(self, tensors: Tensors) -> None:
        stored = self._stored_tensors()
        if tensors.keys() != stored.keys():
            raise SystemExit(f"adapter file: unexpected or missing tensors: {sorted(tensors.keys() ^ stored.keys())[:4]}")
        with torch.no_grad():
            for name, (parts, dim) in stored.items():
                for part, value in zip(parts, tensors[name].chunk(len(parts), dim), strict=True):
                    part.copy_(value)

    # ------------------------------------------------------------------ records

    def pixels(self, picture: str) -> torch.Tensor:
        """[3, S, S]: padded to a square with the mean colour, resized, normalised."""
        with self.phases("image"):
            image = Image.open(self.args.data / "images" / picture).convert("RGB")
            width, height = image.size
            side = max(width, height)
            square = Image.new("RGB", (side, side), tuple(int(c * 255) for c in self.processor.image_mean))
            square.paste(image, ((side - width) // 2, (side - height) // 2))
            return self.processor.preprocess(square, return_tensors="pt")["pixel_values"][0]

    def vision_input(self, picture: str) -> torch.Tensor:
        return self.features[picture] if self.features else self.pixels(picture)

    def encode(self, question: str, answer: str | None = None) -> tuple[list[int], list[int]]:
        """Ids of prompt and answer, and their labels."""
        with self.phases("tokenize"):
            prompt = self.tokenizer(prompt_text(question, self.image_tokens)).input_ids
            if answer is None:
                return prompt, []
            text = answer_text(answer, self.tokenizer.eos_token)
            learnt = self.tokenizer(text, add_special_tokens=False).input_ids
            return prompt + learnt, [NO_LABEL] * len(prompt) + learnt

    def collate(self, rows: list[tuple[list[int], list[int], torch.Tensor]], pad_left: bool) -> Tensors:
        def padded(values: list[int], filler: int) -> list[int]:
            filling = [filler] * (longest - len(values))
            return filling + values if pad_left else values + filling

        longest = max(len(ids) for ids, _, _ in rows)
        batch = {
            "input_ids": torch.tensor([padded(ids, self.tokenizer.pad_token_id) for ids, _, _ in rows]),
            "attention_mask": torch.tensor([padded([1] * len(ids), 0) for ids, _, _ in rows]),
            "pixel_values": torch.stack([vision for _, _, vision in rows]),
        }
        if rows[0][1]:
            batch["labels"] = torch.tensor([padded(labels, NO_LABEL) for _, labels, _ in rows])
        batch["pixel_values"] = batch["pixel_values"].to(getattr(torch, self.args.dtype))
        return {name: tensor.to(self.args.device) for name, tensor in batch.items()}

    def training_batch(self, records: list[dict], step: int) -> Tensors:
        rows = []
        for index in range(step * self.args.batch, (step + 1) * self.args.batch):
            record = records[index % len(records)]
            question, answer = (turn["value"] for turn in record["conversations"][:2])
            rows.append((*self.encode(question, answer), self.vision_input(record["image"])))
        return self.collate(rows, pad_left=False)

    @torch.no_grad()
    def warm_vision_cache(self, pictures: set[str]) -> None:
        """Keep the tower's features; from here on the tower is handed them as its input and returns them as they are."""
        tower = self.core.model.vision_tower
        layer = self.core.config.vision_feature_layer
        features = {}
        for picture in sorted(pictures):
            pixels = self.pixels(picture)[None].to(self.args.device, getattr(torch, self.args.dtype))
            states = tower(pixels, output_hidden_states=True).hidden_states
            features[picture] = states[layer][0].clone()
        self.features = features
        tower.forward = lambda kept, **_: BaseModelOutputWithPooling(last_hidden_state=kept, hidden_states=(kept,) * 3)


def learning_rate_factor(step: int, total: int) -> float:
    warmup = max(1, math.ceil(WARMUP_RATIO * total))
    if step < warmup:
        return step / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def train(peer: Peer, records: list[dict]) -> dict[str, Any]:
    args, phases = peer.args, peer.phases
    groups = [{"params": peer.adapter, "lr": args.lr}, {"params": peer.projector, "lr": args.projector_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8,
                                  fused=peer.preset["fused_adamw"])
    total = args.warmup + args.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, total))
    trainable = [*peer.adapter, *peer.projector]
    losses, step_s, tokens = [], [], 0
    peer.core.config.use_cache = False
    peer.model.train()
    for step in range(total):
        if step == args.warmup:
            phases.seconds.clear()
            tokens = 0
        begin = seconds_spent(args.device)
        with phases("data"):
            batch = peer.training_batch(records, step)
        tokens += int(batch["attention_mask"].sum())
        with phases("forward"):
            loss = peer.model(**batch).loss
        with phases("backward"):
            loss.backward()
        with phases("optimizer"):
            torch.nn.utils.clip_grad_norm_(trainable, CLIP_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        step_s.append(seconds_spent(args.device) - begin)
        if args.dump and step < DUMPED_BATCHES:
            save_file(batch, args.dump / f"batch_{step}.safetensors")
    timed = step_s[args.warmup :]
    return {
        "samples": args.steps * args.batch, "samples_per_s_cpu": args.steps * args.batch / sum(timed),
        "samples_per_s_best": args.batch / min(timed), "tokens_per_s_cpu": tokens / sum(timed),
        "step_s": [round(s, 5) for s in timed], "losses": [round(loss, 6) for loss in losses],
        "phases_s": phases.report(), "peak_rss_mb": round(peak_rss_mb(), 1),
    }


@torch.inference_mode()
def evaluate(peer: Peer, records: list[dict]) -> dict[str, Any]:
    args, phases, preset = peer.args, peer.phases, peer.preset
    model = peer.model.eval()
    peer.core.config.use_cache = True
    if preset["merge"] and args.strategy == "lora":
        model = model.merge_and_unload()
    if preset["checkpointing"]:
        peer.core.gradient_checkpointing_disable()
    if preset["eval_batch"] > 1:
        records = sorted(records, key=lambda record: len(record["text"]))
    eos = peer.tokenizer.eos_token_id
    settings = {"max_new_tokens": args.max_new, "do_sample": False, "num_beams": 1, "use_cache": True,
                "pad_token_id": peer.tokenizer.pad_token_id}
    if args.fixed_len:
        settings["min_new_tokens"] = args.max_new
    phases.seconds.clear()
    outputs: dict[str, list[int]] = {}
    begin = seconds_spent(args.device)
    for first in range(0, len(records), preset["eval_batch"]):
        part = records[first : first + preset["eval_batch"]]
        rows = [(*peer.encode(record["text"]), peer.vision_input(record["image"])) for record in part]
        batch = peer.collate(rows, pad_left=True)
        with phases("generate"):
            generated = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :].tolist()
        for record, ids in zip(part, generated, strict=True):
            outputs[record["question_id"]] = ids[: ids.index(eos) + 1] if eos in ids else ids
            peer.tokenizer.decode(outputs[record["question_id"]], skip_special_tokens=True)
    seconds = seconds_spent(args.device) - begin
    return {
        "samples": len(records), "seconds": round(seconds, 4), "samples_per_s_cpu": len(records) / seconds,
        "new_tokens": sum(map(len, outputs.values())), "phases_s": phases.report(), "outputs": outputs,
    }


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    begin = time.perf_counter()
    peer = Peer(args)
    load_s = time.perf_counter() - begin
    if args.dump:
        args.dump.mkdir(parents=True, exist_ok=True)
        save_file(peer.adapter_tensors(), args.dump / "adapter_init.safetensors")
    training = json.loads((args.data / "train.json").read_text())
    test = json.loads((args.data / "test.json").read_text())[: args.eval_samples]
    if args.vision_cache == "warm":
        used = training[: (args.warmup + args.steps) * args.batch]
        peer.warm_vision_cache({record["image"] for record in [*used, *test]})
    report = {
        "engine": "transformers + peft",
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)},
        "args": {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()},
        "load_s": round(load_s, 3), "trainable": sum(p.numel() for p in peer.adapter),
        "trainable_projector": sum(p.numel() for p in peer.projector),
        "train": train(peer, training),
    }
    if test:
        report["eval"] = evaluate(peer, test)
    report["peak_rss_mb"] = round(peak_rss_mb(), 1)
    if args.device != "cpu":
        report["gpu"] = torch.cuda.get_device_name()
        report["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    report["gemm_gflops"] = round(gemm_gflops(), 1)
    if args.dump:
        (args.dump / "losses.json").write_text(json.dumps(report["train"]["losses"]))
        (args.dump / "generated.json").write_text(json.dumps(report.get("eval", {}).get("outputs", {})))
    text = json.dumps(report, indent=1)
    print(text)
    if args.report:
        args.report.write_text(text)


if __name__ == "__main__":
    main()
