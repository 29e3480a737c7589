"""LLaVA-1.5 and LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from family import (
    BICUBIC,
    CLIP_MEAN,
    CLIP_STD,
    DECODER_LINEARS,
    HALF,
    Generative,
    Sample,
    load_image_processor,
    load_tokenizer,
    setting,
)
from fixture_files import Json, write_json
from tiny_tokenizers import build_llama_tokenizer, build_qwen2_tokenizer, padded_vocabulary_size, save_tokenizer


class LlavaKind(Generative):
    """What the two have in common: module names, which `transformers` 4.52 and 5 changed."""

    probes = {
        "vision_last_hidden": "model.vision_tower",
        "projected": "model.multi_modal_projector",
        "decoder_layer_0": "model.language_model.layers.0",
        "final_norm": "model.language_model.norm",
    }

    def published_name(self, name: str) -> str:
        name = name.removeprefix("model.")
        if name.startswith("lm_head."):
            return f"language_model.{name}"
        if name.startswith("language_model."):
            return name.replace("language_model.", "language_model.model.", 1)
        if name.startswith("vision_tower."):
            return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
        return name


class Llava(LlavaKind):
    """LLaVA-1.5: CLIP tower read at layer -2 without CLS, two-layer projector, LLaMA decoder."""

    name = "llava"
    model_class = "LlavaForConditionalGeneration"
    weights_dtype = torch.float16
    first_seed = 20260
    eos_token = "</s>"
    image_side, patch_size = 28, 7
    picture_sizes = {"image_a.png": (61, 43), "image_b.png": (25, 38)}  # wide and tall, both odd
    samples = {
        "a": Sample("image_a.png", "What is in the image?", "a red square"),
        "b": Sample("image_b.png", "How many people are standing near the table? Answer in one word.", "three"),
    }
    chat_template = (
        "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
        "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )

    def prompt(self, question: str) -> str:
        return f"USER: <image>\n{question} ASSISTANT:"

    def write_tokenizer(self, checkpoint: Path) -> None:
        tokenizer = build_llama_tokenizer(added=["<image>", "<pad>"], prepend=True)
        save_tokenizer(tokenizer, checkpoint, {
            "unk_token": "<unk>", "bos_token": "<s>", "eos_token": self.eos_token, "pad_token": "<pad>",
            "padding_side": "left", "legacy": False, "add_bos_token": True, "add_eos_token": False,
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = load_tokenizer(checkpoint)
        vocabulary = padded_vocabulary_size(tokenizer)
        return {
            "architectures": [self.model_class], "ignore_index": -100,
            "image_token_index": tokenizer.token_to_id("<image>"), "model_type": "llava",
            "pad_token_id": tokenizer.token_to_id("<pad>"), "projector_hidden_act": "gelu",
            # As sparse as the published file: rope_theta, head_dim, hidden_act and num_key_value_heads are
            # LlamaConfig's defaults, which a reader has to know.
            "text_config": {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
                "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 4,
                "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "torch_dtype": "float16",
                "vocab_size": vocabulary,
            },
            "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": 48, "image_size": self.image_side,
                "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 4,
                "patch_size": self.patch_size, "projection_dim": 32, "vocab_size": 32000,
            },
            "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": vocabulary,
        }

    def write_processor_files(self, checkpoint: Path) -> None:
        side = self.image_side
        write_json(checkpoint / "preprocessor_config.json", {
            "crop_size": {"height": side, "width": side}, "do_center_crop": True, "do_convert_rgb": True,
            "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": CLIP_MEAN,
            "image_processor_type": "CLIPImageProcessor", "image_std": CLIP_STD,
            "processor_class": "LlavaProcessor", "resample": BICUBIC, "rescale_factor": 1 / 255,
            "size": {"shortest_edge": side},
        })
        write_json(checkpoint / "processor_config.json", {
            "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": self.patch_size,
            "processor_class": "LlavaProcessor", "vision_feature_select_strategy": "default",
        })

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.LlavaProcessor(
            image_processor=load_image_processor(checkpoint, backend),
            tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint),
            patch_size=self.patch_size, vision_feature_select_strategy="default", image_token="<image>",
            num_additional_image_tokens=1,
        )

    def lora_config(self) -> peft.LoraConfig:
        # The expression keeps LoRA out of the tower, whose layers are called q_proj, k_proj and v_proj too.
        return peft.LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, bias="none",
            target_modules=rf".*language_model.*\.({DECODER_LINEARS})", modules_to_save=["multi_modal_projector"],
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "vision_feature_layer=-1": setting("vision_feature_layer", -1),
            "vision_config.hidden_act=gelu": setting("vision_config.hidden_act", "gelu"),
            "vision_config.layer_norm_eps=1e-6": setting("vision_config.layer_norm_eps", 1e-6),
            "projector_hidden_act=gelu_pytorch_tanh": setting("projector_hidden_act", "gelu_pytorch_tanh"),
            "text_config.rope_theta=500000": setting("text_config.rope_theta", 500000.0),
            "text_config.rms_norm_eps=1e-6": setting("text_config.rms_norm_eps", 1e-6),
        }


class LlavaDino(Llava):
    """LLaVA with a DINOv2 tower: layer scale, names of its own and no module around them, read at the last layer."""

    name = "llava_dinov2"
    weights_dtype = torch.float32
    first_seed = 52600
    samples = {
        "a": Sample("image_a.png", "Which colour is the largest shape?", "dark green"),
        "b": Sample("image_b.png", "Is there a window?", "no, a door"),
    }

    def published_name(self, name: str) -> str:
        name = super().published_name(name).replace("vision_tower.vision_model.", "vision_tower.", 1)
        if not name.startswith("vision_tower."):
            return name
        for new, old in (("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value"),
                         ("o_proj", "output.dense")):  # names of the module since 5 -> of published files
            name = name.replace(f".attention.{new}.", f".attention.{old}.")
        return name

    def config(self, checkpoint: Path) -> Json:
        return super().config(checkpoint) | {
            "torch_dtype": "float32", "vision_feature_layer": -1,
            "vision_config": {
                "model_type": "dinov2", "hidden_size": 48, "image_size": self.image_side, "mlp_ratio": 2,
                "num_attention_heads": 4, "num_hidden_layers": 3, "patch_size": self.patch_size,
            },
        }

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "vision_feature_layer=-2": setting("vision_feature_layer", -2),
            "vision_config.layer_norm_eps=1e-5": setting("vision_config.layer_norm_eps", 1e-5),
            "vision_config.hidden_act=gelu_pytorch_tanh": setting("vision_config.hidden_act", "gelu_pytorch_tanh"),
        }


class LlavaOnevision(LlavaKind):
    """LLaVA-OneVision: SigLIP tower, tiles of any resolution, Qwen2 decoder with grouped heads and a tied head."""

    name = "llava_onevision"
    model_class = "LlavaOnevisionForConditionalGeneration"
    weights_dtype = torch.float16
    eos_token = "<|im_end|>"
    image_side, patch_size = 30, 6
    # Picture a takes two rows of three tiles, whose features are cut at the sides and then shrunk; b takes two tiles,
    # cut above and below.
    grid = [[30, 30], [30, 60], [60, 30], [60, 60], [60, 90], [90, 60]]
    aspect_ratio = "anyres_max_2"
    picture_sizes = {"image_a.png": (79, 58), "image_b.png": (27, 44)}
    samples = {
        "a": Sample("image_a.png", "Which colour has the round shape?", "blue"),
        "b": Sample("image_b.png", "Is there a thin line in the picture, and where does it run? Be brief.",
                    "yes, down the middle"),
    }
    chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )

    def prompt(self, question: str) -> str:
        return f"<|im_start|>user\n<image>\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def answer_text(self, answer: str) -> str:
        return f"{answer}{self.eos_token}"

    def write_tokenizer(self, checkpoint: Path) -> None:
        tokenizer = build_qwen2_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"])
        save_tokenizer(tokenizer, checkpoint, {
            "bos_token": None, "eos_token": self.eos_token, "pad_token": "<|endoftext|>", "padding_side": "left",
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = load_tokenizer(checkpoint)
        return {
            "architectures": [self.model_class], "ignore_index": -100, "image_grid_pinpoints": self.grid,
            "image_token_index": tokenizer.token_to_id("<image>"), "model_type": "llava_onevision",
            "projector_hidden_act": "gelu",
            "text_config": {
                "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
                "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
                "eos_token_id": tokenizer.token_to_id(self.eos_token), "hidden_size": 48, "intermediate_size": 88,
                "max_position_embeddings": 1024, "max_window_layers": 3, "num_attention_heads": 6,
                "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
                "tie_word_embeddings": True, "torch_dtype": "float16", "use_sliding_window": False,
                "vocab_size": padded_vocabulary_size(tokenizer),
            },
            "tie_word_embeddings": True, "torch_dtype": "float16", "transformers_version": "4.45.0.dev0",
            "use_image_newline_parameter": True, "video_token_index": tokenizer.token_to_id("<video>"),
            "vision_aspect_ratio": self.aspect_ratio,
            "vision_config": {
                "model_type": "siglip_vision_model", "hidden_size": 40, "image_size": self.image_side,
                "intermediate_size": 80, "num_attention_heads": 4, "num_hidden_layers": 3,
                "patch_size": self.patch_size, "vision_use_head": False,
            },
            "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
        }

    def write_processor_files(self, checkpoint: Path) -> None:
        side = self.image_side
        write_json(checkpoint / "preprocessor_config.json", {
            "do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
            "image_grid_pinpoints": self.grid, "image_mean": HALF,
            "image_processor_type": "LlavaOnevisionImageProcessor", "image_std": HALF,
            "processor_class": "LlavaOnevisionProcessor", "resample": BICUBIC, "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        })
        write_json(checkpoint / "processor_config.json", {
            "image_token": "<image>", "num_image_tokens": (side // self.patch_size) ** 2,
            "processor_class": "LlavaOnevisionProcessor", "video_token": "<video>",
            "vision_aspect_ratio": self.aspect_ratio, "vision_feature_select_strategy": "full",
        })

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.LlavaOnevisionProcessor(
            image_processor=load_image_processor(checkpoint, backend),
            video_processor=transformers.LlavaOnevisionVideoProcessor(),
            tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint),
            num_image_tokens=(self.image_side // self.patch_size) ** 2, vision_feature_select_strategy="full",
            image_token="<image>", video_token="<video>", vision_aspect_ratio=self.aspect_ratio,
        )

    def lora_config(self) -> peft.LoraConfig:
        # A list of suffixes, as many recipes write it: q_proj and v_proj are found in the tower too.
        return peft.LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, bias="none", use_rslora=True,
            target_modules=["q_proj", "v_proj", "o_proj"],
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "vision_feature_layer=-2": setting("vision_feature_layer", -2),
            "vision_config.hidden_act=gelu": setting("vision_config.hidden_act", "gelu"),
            "vision_config.layer_norm_eps=1e-5": setting("vision_config.layer_norm_eps", 1e-5),
            "projector_hidden_act=gelu_pytorch_tanh": setting("projector_hidden_act", "gelu_pytorch_tanh"),
            "text_config.rope_theta=10000": setting("text_config.rope_theta", 10000.0),
            "text_config.rms_norm_eps=1e-5": setting("text_config.rms_norm_eps", 1e-5),
        }
