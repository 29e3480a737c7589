"""Two towers: CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from family import BICUBIC, CLIP_MEAN, CLIP_STD, HALF, TwoTowers, load_image_processor, load_tokenizer, setting
from fixture_files import Json, Tensors, write_json
from tiny_tokenizers import build_clip_tokenizer, build_siglip_tokenizer, save_tokenizer


class Clip(TwoTowers):
    """CLIP: softmax loss, a causal text tower, texts padded to the longest."""

    name = "clip"
    model_class = "CLIPModel"
    weights_dtype = torch.float32
    first_seed = 20260
    image_side, patch_size, context_length = 28, 7, 40
    padding = True
    picture_sizes = {"image_a.png": (61, 43), "image_b.png": (25, 38)}  # wide and tall, both odd
    texts = ("a photo of a red square", "A blue circle, isn't it?", "three people near the table")

    def write_tokenizer(self, checkpoint: Path) -> None:
        save_tokenizer(build_clip_tokenizer(), checkpoint, {
            "unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>", "padding_side": "right", "model_max_length": self.context_length,
        })

    def config(self, checkpoint: Path) -> Json:
        return {
            "architectures": [self.model_class], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
            "model_type": "clip", "projection_dim": 32,
            "text_config": {
                # eos_token_id 2, as in OpenAI's files, means: pool the position of the largest id. Any other value
                # means: pool the first position with that id.
                "model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
                "hidden_act": "quick_gelu", "hidden_size": 36, "intermediate_size": 72, "layer_norm_eps": 1e-05,
                "max_position_embeddings": self.context_length, "num_attention_heads": 3, "num_hidden_layers": 3,
                "projection_dim": 32, "vocab_size": load_tokenizer(checkpoint).get_vocab_size(),
            },
            "torch_dtype": "float32", "transformers_version": "4.16.0.dev0",
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_act": "quick_gelu", "hidden_size": 48,
                "image_size": self.image_side, "intermediate_size": 96, "layer_norm_eps": 1e-05,
                "num_attention_heads": 4, "num_hidden_layers": 3, "patch_size": self.patch_size,
                "projection_dim": 32,
            },
        }

    def write_processor_files(self, checkpoint: Path) -> None:
        # The old form with plain numbers for the sizes, as in OpenAI's files.
        write_json(checkpoint / "preprocessor_config.json", {
            "crop_size": self.image_side, "do_center_crop": True, "do_normalize": True, "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
            "resample": BICUBIC, "size": self.image_side,
        })

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.CLIPProcessor(
            load_image_processor(checkpoint, backend), transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)
        )

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=["q_proj", "v_proj"])

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "hidden_act=gelu (both towers)": _gelu,
            "text_config.layer_norm_eps=1e-12": setting("text_config.layer_norm_eps", 1e-12),
            "vision_config.layer_norm_eps=1e-12": setting("vision_config.layer_norm_eps", 1e-12),
        }


class Siglip(TwoTowers):
    """SigLIP: sigmoid loss with a bias, pictures pooled by attention, texts by their last position, mostly padding."""

    name = "siglip"
    model_class = "SiglipModel"
    weights_dtype = torch.float32
    image_side, patch_size, context_length = 24, 6, 28
    padding = "max_length"
    picture_sizes = {"image_a.png": (67, 40), "image_b.png": (29, 45)}
    texts = ("a blue circle", "The Small, brown bird!", "a sign that says no parking")

    def write_tokenizer(self, checkpoint: Path) -> None:
        save_tokenizer(build_siglip_tokenizer(), checkpoint, {
            "unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>", "padding_side": "right",
            "model_max_length": self.context_length, "model_input_names": ["input_ids"],
        })

    def config(self, checkpoint: Path) -> Json:
        # As sparse as the published file: hidden_act, layer_norm_eps and vision_use_head are the classes' defaults.
        return {
            "architectures": [self.model_class], "initializer_factor": 1.0, "model_type": "siglip",
            "text_config": {
                "model_type": "siglip_text_model", "hidden_size": 40, "intermediate_size": 72,
                "max_position_embeddings": self.context_length, "num_attention_heads": 4, "num_hidden_layers": 3,
                "vocab_size": load_tokenizer(checkpoint).get_vocab_size(),
            },
            "torch_dtype": "float32", "transformers_version": "4.37.0.dev0",
            "vision_config": {
                "model_type": "siglip_vision_model", "hidden_size": 40, "image_size": self.image_side,
                "intermediate_size": 72, "num_attention_heads": 4, "num_hidden_layers": 3,
                "patch_size": self.patch_size,
            },
        }

    def write_processor_files(self, checkpoint: Path) -> None:
        side = self.image_side
        write_json(checkpoint / "preprocessor_config.json", {
            "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": HALF,
            "image_processor_type": "SiglipImageProcessor", "image_std": HALF, "processor_class": "SiglipProcessor",
            "resample": BICUBIC, "rescale_factor": 1 / 255, "size": {"height": side, "width": side},
        })

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.SiglipProcessor(
            load_image_processor(checkpoint, backend), transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)
        )

    def inputs(self, processor: Any, folder: Path) -> Tensors:
        """As CLIP's. The tokenizer gives no mask, for padding is attended to: the stored one is all ones."""
        batch = super().inputs(processor, folder)
        return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}

    def wrong_inputs(self, inputs: Tensors) -> dict[str, Tensors]:
        padding = inputs["input_ids"].roll(1, dims=1) == 1  # the first </s> is the text's own
        padding[:, 0] = False
        return {"text: padding masked": inputs | {"attention_mask": (~padding).long()}}

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=["q_proj", "v_proj"])

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        return {
            "hidden_act=gelu (both towers)": _gelu,
            "text_config.layer_norm_eps=1e-5": setting("text_config.layer_norm_eps", 1e-5),
            "vision_config.layer_norm_eps=1e-5": setting("vision_config.layer_norm_eps", 1e-5),
        }


def _gelu(config: Json) -> None:
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = "gelu"
