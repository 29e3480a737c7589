"""Decoders alone, without pictures: LLaMA, SmolLM2 and Qwen2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from family import DECODER_LINEARS, Generative, Sample, load_tokenizer, setting
from fixture_files import Json, Tensors
from PIL import Image
from tiny_tokenizers import (
    build_llama_tokenizer,
    build_qwen2_tokenizer,
    build_smollm_tokenizer,
    padded_vocabulary_size,
    save_tokenizer,
)


class TextOnly(Generative):
    """A decoder whose tokenizer is the whole processor."""

    probes = {
        "inputs_embeds": "model.embed_tokens",
        "decoder_layer_0": "model.layers.0",
        "final_norm": "model.norm",
    }
    samples = {
        "a": Sample(None, "Name a fruit that is yellow.", "the banana"),
        "b": Sample(None, "What is the sum of 17 and 25? Give the number, and nothing else.", "42"),
    }

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)

    def tokenizer_of(self, processor: Any) -> Any:
        return processor

    def encode(self, processor: Any, pictures: list[Image.Image], texts: list[str]) -> Tensors:
        processor.padding_side = "left"
        batch = processor(texts, padding=True, return_tensors="pt")
        return {name: batch[name] for name in ("input_ids", "attention_mask")}


class ChatMl(TextOnly):
    """The two that frame a turn by `<|im_start|>` and `<|im_end|>`."""

    eos_token = "<|im_end|>"
    chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )

    def prompt(self, question: str) -> str:
        return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def answer_text(self, answer: str) -> str:
        return f"{answer}{self.eos_token}"


class Llama(TextOnly):
    """LLaMA: a head of its own, attention_bias, grouped heads of a size that is not hidden_size / heads."""

    name = "llama"
    model_class = "LlamaForCausalLM"
    weights_dtype = torch.float16
    eos_token = "</s>"
    chat_template = (
        "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
        "{% for c in m['content'] %}{{ c['text'] + ' ' }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )

    def prompt(self, question: str) -> str:
        return f"USER: {question} ASSISTANT:"

    def write_tokenizer(self, checkpoint: Path) -> None:
        save_tokenizer(build_llama_tokenizer(added=["<pad>"], num_merges=120), checkpoint, {
            "unk_token": "<unk>", "bos_token": "<s>", "eos_token": self.eos_token, "pad_token": "<pad>",
            "padding_side": "left", "legacy": False, "add_bos_token": True, "add_eos_token": False,
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = load_tokenizer(checkpoint)
        return {
            "architectures": [self.model_class], "attention_bias": True, "bos_token_id": 1, "eos_token_id": 2,
            "head_dim": 14, "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 88,
            "max_position_embeddings": 512, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 3,
            "num_key_value_heads": 2, "pad_token_id": tokenizer.token_to_id("<pad>"), "rms_norm_eps": 1e-05,
            "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16",
            "transformers_version": "4.40.0", "use_cache": True, "vocab_size": padded_vocabulary_size(tokenizer),
        }

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=DECODER_LINEARS.split("|"),
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "rope_theta=500000": setting("rope_theta", 500000.0),
            "rms_norm_eps=1e-6": setting("rms_norm_eps", 1e-6),
        }


class SmolLm2(ChatMl):
    """SmolLM2: the LLaMA class with a tied head, three heads to one of keys and values, no biases."""

    name = "smollm2"
    model_class = "LlamaForCausalLM"
    weights_dtype = torch.bfloat16

    def write_tokenizer(self, checkpoint: Path) -> None:
        tokenizer = build_smollm_tokenizer(["<|endoftext|>", "<|im_start|>", self.eos_token], [])
        save_tokenizer(tokenizer, checkpoint, {
            "bos_token": "<|im_start|>", "eos_token": self.eos_token, "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>", "padding_side": "left",
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = load_tokenizer(checkpoint)
        return {
            "architectures": [self.model_class], "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 88, "max_position_embeddings": 1024,
            "mlp_bias": False, "model_type": "llama", "num_attention_heads": 3, "num_hidden_layers": 3,
            "num_key_value_heads": 1, "pad_token_id": 2, "rms_norm_eps": 1e-05, "rope_interleaved": False,
            "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
            "transformers_version": "4.42.3", "use_cache": True, "vocab_size": padded_vocabulary_size(tokenizer),
        }

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, bias="none", use_rslora=True, target_modules=["q_proj", "v_proj"],
            layers_to_transform=[0, 2],
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "rope_theta=10000": setting("rope_theta", 10000),
            "rms_norm_eps=1e-6": setting("rms_norm_eps", 1e-6),
        }


class Qwen2(ChatMl):
    """Qwen2: biases on q, k and v only, grouped heads, a tied head, `eos_token_id` of another token than the chat's."""

    name = "qwen2"
    model_class = "Qwen2ForCausalLM"
    weights_dtype = torch.bfloat16

    def write_tokenizer(self, checkpoint: Path) -> None:
        tokenizer = build_qwen2_tokenizer(["<|endoftext|>", "<|im_start|>", self.eos_token])
        save_tokenizer(tokenizer, checkpoint, {
            "bos_token": None, "eos_token": self.eos_token, "pad_token": "<|endoftext|>", "padding_side": "left",
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = load_tokenizer(checkpoint)
        end = tokenizer.token_to_id("<|endoftext|>")
        return {
            "architectures": [self.model_class], "attention_dropout": 0.0, "bos_token_id": end, "eos_token_id": end,
            "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 88, "max_position_embeddings": 1024,
            "max_window_layers": 3, "model_type": "qwen2", "num_attention_heads": 6, "num_hidden_layers": 3,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 1024,
            "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.40.1",
            "use_cache": True, "use_sliding_window": False, "vocab_size": padded_vocabulary_size(tokenizer),
        }

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=3, lora_alpha=6, lora_dropout=0.0, bias="none", target_modules=rf"model\..*\.({DECODER_LINEARS})",
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "rope_theta=10000": setting("rope_theta", 10000.0),
            "rms_norm_eps=1e-5": setting("rms_norm_eps", 1e-5),
        }
