#!/usr/bin/env python3
"""Tiny language models in GGUF, and what llama.cpp's own Python package makes of them.

    pip install --no-deps --target DIR gguf==0.19.0
    PYTHONPATH=DIR $(python3 benchmarks/speed/peer_env.py) tests/parity/make_gguf.py

rewrites tests/fixtures/gguf:

    NAME.gguf             one per way to store tensors, and one per tokenizer
    NAME.safetensors      the Hugging Face tensors of it: dequantised by the package, rows in Hugging Face's order
    tokenizer_cases.json  text -> ids, by `tokenizers` from the same vocabulary

Weights are seeded by file and tensor name. The package has no quantiser for K-quants: their blocks are random bytes
with sane scales.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path

import gguf
import numpy as np
from fixture_files import write_json
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save
from tiny_tokenizers import CASES, build_llama_tokenizer, build_qwen2_tokenizer, build_smollm_tokenizer
from tokenizers import Tokenizer, pre_tokenizers

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "gguf"
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    types: tuple[Type, ...]  # of the matrices, in turn
    family: str = "llama"
    tied: bool = True
    hidden: int = 32
    inner: int = 8
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    head: int = 8
    rows: int = 8
    expected: bool = True


MODELS = [
    Model("plain", (Type.F32, Type.F16, Type.BF16), tied=False),
    Model("q4_0", (Type.Q4_0,), layers=1),
    Model("q4_1", (Type.Q4_1,)),
    Model("q8_0", (Type.Q8_0,), layers=1),
    Model("q4_k", (Type.Q4_K,), hidden=256, inner=1, layers=1, heads=1, head=2, rows=4),
    Model("q6_k", (Type.Q6_K,), hidden=256, inner=1, layers=1, heads=1, head=2, rows=4),
    Model("qwen2_q8_0", (Type.Q8_0,), family="qwen2"),
]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        write_model(model)
    cases: list[dict] = [{"text": text} for text in CASES]
    for name, family, tokenizer in tokenizers():
        model = Model(name, (Type.Q4_0,), family=family, inner=1, layers=1, expected=False,
                      rows=tokenizer.get_vocab_size(with_added_tokens=True) + 2)
        write_model(model, tokenizer)
        for case in cases:
            case[name] = tokenizer.encode(case["text"]).ids
    write_json(OUT / "tokenizer_cases.json", cases)
    print(f"{OUT}: {sum(file.stat().st_size for file in OUT.iterdir()) / 1000:.0f} kB")


def write_model(model: Model, tokenizer: Tokenizer | None = None) -> None:
    writer = gguf.GGUFWriter(OUT / f"{model.name}.gguf", model.family)
    writer.add_context_length(128)
    writer.add_embedding_length(model.hidden)
    writer.add_feed_forward_length(model.inner)
    writer.add_block_count(model.layers)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head)
    writer.add_value_length(model.head)
    writer.add_rope_dimension_count(model.head)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if tokenizer is not None:
        add_tokenizer(writer, tokenizer, model)
    expected = {}
    for number, (file_name, name, shape, heads) in enumerate(slots(model)):
        values = np.random.default_rng(zlib.crc32(f"{model.name}:{name}".encode())).standard_normal(shape, np.float32)
        stored = model.types[number % len(model.types)] if len(shape) == 2 else Type.F32
        if shape[-1] % gguf.GGML_QUANT_SIZES[stored][0] != 0:
            stored = Type.F32  # as llama.cpp does with rows that are no whole number of blocks
        if stored in (Type.Q4_K, Type.Q6_K):
            raw = random_blocks(values, stored)
        else:
            raw = gguf.quants.quantize(turned(values, heads), stored)
        writer.add_tensor(file_name, raw, raw_dtype=stored)
        numbers = raw if stored == Type.F16 else gguf.quants.dequantize(raw, stored)
        expected[name] = np.ascontiguousarray(turned_back(numbers, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if model.expected:
        (OUT / f"{model.name}.safetensors").write_bytes(save(expected))


def slots(model: Model) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name in the file, name in Hugging Face, shape, heads within which rows are reordered."""
    d, f = model.hidden, model.inner
    q, k = model.heads * model.head, model.kv_heads * model.head
    turn_q, turn_k = (model.heads, model.kv_heads) if model.family == "llama" else (0, 0)
    found: list[tuple[str, str, tuple[int, ...], int]] = [
        ("token_embd.weight", "model.embed_tokens.weight", (model.rows, d), 0)]
    for i in range(model.layers):
        block = [
            ("attn_norm.weight", "input_layernorm.weight", (d,), 0),
            ("attn_q.weight", "self_attn.q_proj.weight", (q, d), turn_q),
            ("attn_k.weight", "self_attn.k_proj.weight", (k, d), turn_k),
            ("attn_v.weight", "self_attn.v_proj.weight", (k, d), 0),
            ("attn_output.weight", "self_attn.o_proj.weight", (d, q), 0),
            ("ffn_norm.weight", "post_attention_layernorm.weight", (d,), 0),
            ("ffn_gate.weight", "mlp.gate_proj.weight", (f, d), 0),
            ("ffn_up.weight", "mlp.up_proj.weight", (f, d), 0),
            ("ffn_down.weight", "mlp.down_proj.weight", (d, f), 0),
        ]
        if model.family == "qwen2":
            block += [(f"attn_{name}.bias", f"self_attn.{name}_proj.bias", (rows,), 0)
                      for name, rows in (("q", q), ("k", k), ("v", k))]
        found += [(f"blk.{i}.{file}", f"model.layers.{i}.{name}", shape, heads) for file, name, shape, heads in block]
    found.append(("output_norm.weight", "model.norm.weight", (d,), 0))
    if not model.tied:
        found.append(("output.weight", "lm_head.weight", (model.rows, d), 0))
    return found


def turned(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does with queries and keys: halves (i, i + d/2) become neighbours."""
    if heads == 0:
        return rows
    return np.concatenate([row for head in np.split(rows, heads) for pair in zip(*np.split(head, 2), strict=True)
                           for row in pair]).reshape(rows.shape)


def turned_back(rows: np.ndarray, heads: int) -> np.ndarray:
    if heads == 0:
        return rows
    return np.concatenate([half for head in np.split(rows, heads) for half in (head[0::2], head[1::2])])


def random_blocks(like: np.ndarray, stored: Type) -> np.ndarray:
    """Rows of blocks whose bits are random; the float16 scales (first, and last of Q6_K) are small numbers."""
    weights, size = gguf.GGML_QUANT_SIZES[stored]
    rng = np.random.default_rng(np.abs(like[:, 0] * 1e6).astype(np.uint32))
    blocks = rng.integers(0, 256, (like.size // weights, size), np.uint8)
    scale = rng.uniform(-0.01, 0.01, (len(blocks), 2)).astype(np.float16).view(np.uint8)
    if stored == Type.Q4_K:
        blocks[:, :4] = scale
    else:
        blocks[:, -2:] = scale[:, :2]
    return blocks.reshape(len(like), -1)


def tokenizers() -> list[tuple[str, str, Tokenizer]]:
    """Name of the file, architecture, the tokenizer that its vocabulary is taken from."""
    words = build_smollm_tokenizer(CHATML, [])
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [("smollm", "llama", build_smollm_tokenizer(CHATML, [])),
            ("qwen2", "qwen2", build_qwen2_tokenizer(CHATML)),
            ("gpt2", "llama", words),
            ("pieces", "llama", build_llama_tokenizer(["<pad>"], prepend=True))]


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, model: Model) -> None:
    """As llama.cpp's converter writes it; rows of the embedding beyond the vocabulary are unused tokens."""
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    types = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = model.name == "pieces"
    if pieces:
        ranks = {left + right: rank for rank, (left, right) in enumerate(merges)}
        types = [gguf.TokenType.UNKNOWN if token == "<unk>" else
                 gguf.TokenType.BYTE if token.startswith("<0x") else kind
                 for token, kind in zip(tokens, types, strict=True)]
        scores = [-float(ranks.get(token, len(ranks) + id)) if kind == gguf.TokenType.NORMAL else 0.0
                  for id, (token, kind) in enumerate(zip(tokens, types, strict=True))]
    padding = model.rows - len(tokens)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if model.name in ("gpt2", "pieces") else model.name)
    writer.add_token_list(tokens + [f"[PAD{len(tokens) + i}]" for i in range(padding)])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * padding)
    if pieces:
        writer.add_token_scores(scores + [-10000.0] * padding)
        writer.add_unk_token_id(0)
    else:
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
        writer.add_add_bos_token(False)
    writer.add_bos_token_id(1 if pieces else tokens.index("<|im_start|>"))
    writer.add_eos_token_id(2 if pieces else tokens.index("<|im_end|>"))
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


if __name__ == "__main__":
    main()
