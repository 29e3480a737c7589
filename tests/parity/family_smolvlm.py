"""SmolVLM, of the Idefics3 class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from family import (
    DECODER_LINEARS,
    HALF,
    LANCZOS,
    Generative,
    Sample,
    load_image_processor,
    load_tokenizer,
    setting,
)
from fixture_files import Json, Tensors, write_json
from PIL import Image
from tiny_tokenizers import build_smollm_tokenizer, padded_vocabulary_size, save_tokenizer


class SmolVlm(Generative):
    """SmolVLM: SigLIP tower over rows and columns of tiles, pixel shuffle by 3, SmolLM2 decoder."""

    name = "smolvlm"
    model_class = "Idefics3ForConditionalGeneration"
    weights_dtype = torch.bfloat16
    eos_token = "<end_of_utterance>"
    image_side, patch_size, scale_factor, tiles = 24, 4, 3, 3
    picture_sizes = {"image_a.png": (70, 33), "image_b.png": (19, 58)}  # 2 rows of 3 tiles; 3 rows of 1
    samples = {
        "a": Sample("image_a.png", "Name the two shapes.", "a square and a circle"),
        "b": Sample("image_b.png", "What does the sign say, and in which colour is it written?", "nothing at all"),
    }
    probes = {
        "vision_last_hidden": "model.vision_model",
        "projected": "model.connector",
        "decoder_layer_0": "model.text_model.layers.0",
        "final_norm": "model.text_model.norm",
    }
    chat_template = (
        "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
        "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
        "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}"
        "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )

    @property
    def tokens_per_tile(self) -> int:
        return (self.image_side // self.patch_size // self.scale_factor) ** 2

    def prompt(self, question: str) -> str:
        return f"<|im_start|>User:<image>{question}<end_of_utterance>\nAssistant:"

    def encode(self, processor: Any, pictures: list[Image.Image], texts: list[str]) -> Tensors:
        """As for the others, one list of pictures per text; the mask as bytes, where `transformers` takes 64 bits."""
        batch = super().encode(processor, [[picture] for picture in pictures], texts)
        return batch | {"pixel_attention_mask": batch["pixel_attention_mask"].to(torch.uint8)}

    def write_tokenizer(self, checkpoint: Path) -> None:
        tags = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
        tokenizer = build_smollm_tokenizer(
            ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            ["<global-img>", *tags, "<fake_token_around_image>", "<image>", self.eos_token],
        )
        save_tokenizer(tokenizer, checkpoint, {
            "bos_token": "<|im_start|>", "eos_token": self.eos_token, "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>", "padding_side": "left",
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = load_tokenizer(checkpoint)
        return {
            "architectures": [self.model_class], "image_token_id": tokenizer.token_to_id("<image>"),
            "model_type": "idefics3", "scale_factor": self.scale_factor,
            "text_config": {
                "architectures": ["VLlama3ForCausalLM"], "model_type": "llama", "head_dim": 12, "hidden_size": 48,
                "intermediate_size": 80, "max_position_embeddings": 1024, "num_attention_heads": 4,
                "num_hidden_layers": 3, "num_key_value_heads": 2,
                "pad_token_id": tokenizer.token_to_id("<|im_end|>"), "rms_norm_eps": 1e-05,
                "rope_interleaved": False, "rope_theta": 100000, "torch_dtype": "bfloat16",
                "vocab_size": padded_vocabulary_size(tokenizer),
            },
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.0",
            "use_cache": True,
            "vision_config": {
                "model_type": "idefics3", "hidden_size": 36, "image_size": self.image_side, "intermediate_size": 80,
                "max_image_size": {"longest_edge": self.image_side}, "num_attention_heads": 3,
                "num_hidden_layers": 3, "patch_size": self.patch_size,
                "size": {"longest_edge": self.image_side * self.tiles}, "torch_dtype": "bfloat16",
            },
        }

    def write_processor_files(self, checkpoint: Path) -> None:
        write_json(checkpoint / "preprocessor_config.json", {
            "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True,
            "do_rescale": True, "do_resize": True, "image_mean": HALF,
            "image_processor_type": "Idefics3ImageProcessor", "image_std": HALF,
            "max_image_size": {"longest_edge": self.image_side}, "processor_class": "Idefics3Processor",
            "resample": LANCZOS, "rescale_factor": 1 / 255, "size": {"longest_edge": self.image_side * self.tiles},
        })
        write_json(checkpoint / "processor_config.json", {
            "image_seq_len": self.tokens_per_tile, "processor_class": "Idefics3Processor",
        })

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.Idefics3Processor(
            image_processor=load_image_processor(checkpoint, backend),
            tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint),
            image_seq_len=self.tokens_per_tile,
        )

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=rf".*text_model.*\.({DECODER_LINEARS})",
            rank_pattern={r"layers\.0\.self_attn\.q_proj": 2, "down_proj": 3},
            alpha_pattern={r"layers\.0\.self_attn\.q_proj": 6},
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "vision_config.hidden_act=gelu": setting("vision_config.hidden_act", "gelu"),
            "vision_config.layer_norm_eps=1e-5": setting("vision_config.layer_norm_eps", 1e-5),
            "text_config.rope_theta=10000": setting("text_config.rope_theta", 10000),
            "text_config.rms_norm_eps=1e-6": setting("text_config.rms_norm_eps", 1e-6),
        }
