#!/usr/bin/env python3
"""What `./dev fetch smollm2 --verify` runs in the peer's environment, with onnxruntime.

    verify_smollm2.py MODELS ONNX

- the patch tokens of the ONNX graph are those of transformers' Dinov2Model with the converted weights;
- transformers loads smollm2 with nothing missing but the connector, and makes inputs for it;
- smollm2-135m knows the capital of France, and is the language model of smollm2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import onnxruntime
import torch
import transformers
from fetch_smollm2 import PATCH
from onnx_weights import read_dinov2

ATOL = 1e-4
GRAPH_SIDE = 224
#: the last layer norm of the backbone: class token and patches
TOKENS = "/backbone/layernorm/Add_1_output_0"


def main() -> None:
    models, onnx = Path(sys.argv[1]), Path(sys.argv[2])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, report = transformers.LlavaForConditionalGeneration.from_pretrained(
        models / "smollm2", dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    missing = sorted(report["missing_keys"])
    expect("only the connector is missing", all("multi_modal_projector" in name for name in missing) and missing
           and not report["unexpected_keys"] and not report["mismatched_keys"], ", ".join(missing))

    rng = np.random.default_rng(1)
    # The graph takes pictures of 224 pixels alone: the tower is given the positions for that size while they compare.
    tower, pixels = model.model.vision_tower, rng.standard_normal((2, 3, GRAPH_SIDE, GRAPH_SIDE)).astype(np.float32)
    kept = tower.embeddings.position_embeddings
    _, shape, data = read_dinov2(onnx, GRAPH_SIDE // PATCH)["embeddings.position_embeddings"]
    positions = torch.from_numpy(np.frombuffer(data, np.float32).reshape(shape).copy())
    tower.embeddings.position_embeddings = torch.nn.Parameter(positions)
    with torch.no_grad():
        found = tower(torch.from_numpy(pixels)).last_hidden_state.numpy()
    tower.embeddings.position_embeddings = kept
    worst = float(np.abs(found - tokens_of_graph(onnx, pixels)).max())
    expect(f"the tower's tokens agree to {ATOL}", worst < ATOL, f"largest difference {worst:.1e}")

    processor = transformers.AutoProcessor.from_pretrained(models / "smollm2", backend="pil")
    picture = rng.integers(0, 256, (200, 300, 3), np.uint8)
    inputs = processor(images=picture, text="<image>\nWhat is this?", return_tensors="pt")
    images = int((inputs.input_ids == model.config.image_token_id).sum())
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    expect("a picture is 64 tokens", images == 64, f"{images} of {inputs.input_ids.shape[1]}")
    expect("<image> is never the most likely", not (logits.argmax(-1) == model.config.image_token_id).any(),
           f"logits {tuple(logits.shape)}")

    language = transformers.LlamaForCausalLM.from_pretrained(models / "smollm2-135m", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(models / "smollm2-135m")
    ids = tokenizer("The capital of France is", return_tensors="pt")
    answer = tokenizer.decode(language.generate(**ids, max_new_tokens=2, do_sample=False)[0])
    expect("the capital of France is Paris", "Paris" in answer, repr(answer))
    with torch.no_grad():
        alone, inside = language(**ids).logits, model(**ids).logits[..., :-1]
    worst = float((alone - inside).abs().max())
    expect("smollm2 has the same language model", worst < 1e-3, f"largest difference of logits {worst:.1e}")


def tokens_of_graph(onnx: Path, pixels: np.ndarray) -> np.ndarray:
    """[B, 257, 384]. Messages put one behind the other are merged: this one only adds an output to the graph."""
    name = TOKENS.encode()
    value = b"\x0a" + bytes([len(name)]) + name
    graph = b"\x62" + bytes([len(value)]) + value
    model = onnx.read_bytes() + b"\x3a" + bytes([len(graph)]) + graph
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run([TOKENS], {"input_image": pixels})[0]


def expect(what: str, holds: bool, detail: str) -> None:
    print(f"{'ok' if holds else 'WRONG'}: {what} ({detail})")
    if not holds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
