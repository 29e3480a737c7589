"""The two model families: config.json, processor files, prompts and LoRA settings of each tiny checkpoint.

Checkpoints are written in the layout of published ones (sparse configs, old tensor names, two shards), not in the
layout that the newest `transformers` saves.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from fixture_files import Json, Tensors, write_json
from PIL import Image
from tiny_tokenizers import build_clip_tokenizer, build_llama_tokenizer, padded_vocabulary_size, save_tokenizer
from tokenizers import Tokenizer

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
BICUBIC = 3  # Pillow's number
DECODER_LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


@dataclasses.dataclass(frozen=True)
class Sample:
    picture: str
    question: str
    answer: str


SAMPLES: dict[str, Sample] = {
    "a": Sample("image_a.png", "What is in the image?", "a red square"),
    "b": Sample("image_b.png", "How many people are standing near the table? Answer in one word.", "three"),
}
PICTURE_SIZES = {"image_a.png": (61, 43), "image_b.png": (25, 38)}  # width, height: wide and tall, both odd


class Family(ABC):
    """What differs between the families; reference.py and sensitivity.py compute."""

    name: str
    model_class: str
    weights_dtype: torch.dtype

    @abstractmethod
    def write_tokenizer(self, checkpoint: Path) -> None: ...

    @abstractmethod
    def config(self, checkpoint: Path) -> Json: ...

    @abstractmethod
    def write_processor_files(self, checkpoint: Path) -> None: ...

    @abstractmethod
    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        """The checkpoint's processor, with pictures resized by "pil" or by "torchvision"."""

    @abstractmethod
    def lora_config(self) -> peft.LoraConfig: ...

    @abstractmethod
    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        """Named edits of config.json, each of which imitates a mistake of an implementation."""

    def published_name(self, name: str) -> str:
        """Module or tensor name of `transformers` 5 -> the name in published checkpoints."""
        return name

    def load_model(self, checkpoint: Path, attention: str = "eager", dtype: torch.dtype = torch.float32
                   ) -> torch.nn.Module:
        """The model in evaluation mode; raises if a tensor is missing, unexpected or of another shape."""
        model, info = getattr(transformers, self.model_class).from_pretrained(
            checkpoint, attn_implementation=attention, dtype=dtype, output_loading_info=True
        )
        problems = {key: sorted(names) for key, names in info.items() if key.endswith("_keys") and names}
        if problems:
            raise RuntimeError(f"{self.name}: the checkpoint did not load cleanly: {problems}")
        return model.eval()


class Llava(Family):
    """LLaVA-1.5: CLIP tower read at layer -2 without CLS, two-layer projector, LLaMA decoder."""

    name = "llava"
    model_class = "LlavaForConditionalGeneration"
    weights_dtype = torch.float16
    eos_token = "</s>"
    image_side, patch_size = 28, 7
    probes = {
        "vision_last_hidden": "model.vision_tower",
        "projected": "model.multi_modal_projector",
        "decoder_layer_0": "model.language_model.layers.0",
        "final_norm": "model.language_model.norm",
    }
    decoder = "model.language_model"
    chat_template = (
        "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
        "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )

    def prompt(self, question: str) -> str:
        return f"USER: <image>\n{question} ASSISTANT:"

    def answer_text(self, answer: str) -> str:
        return f" {answer}{self.eos_token}"

    def messages(self, question: str) -> list[Json]:
        return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]

    def encode(self, processor: Any, pictures: list[Image.Image], texts: list[str]) -> Tensors:
        """Model inputs, padded on the left."""
        processor.tokenizer.padding_side = "left"
        batch = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        return {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k != "token_type_ids"}

    def write_tokenizer(self, checkpoint: Path) -> None:
        save_tokenizer(build_llama_tokenizer(), checkpoint, {
            "unk_token": "<unk>", "bos_token": "<s>", "eos_token": self.eos_token, "pad_token": "<pad>",
            "padding_side": "left", "legacy": False, "add_bos_token": True, "add_eos_token": False,
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
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
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        write_json(checkpoint / "generation_config.json", {
            "_from_model_config": True, "eos_token_id": tokenizer.token_to_id(self.eos_token),
            "pad_token_id": tokenizer.token_to_id("<pad>"), "transformers_version": "4.46.0",
            "bos_token_id": tokenizer.token_to_id("<s>"),
        })
        (checkpoint / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        return transformers.LlavaProcessor(
            image_processor=transformers.AutoImageProcessor.from_pretrained(checkpoint, backend=backend),
            tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint),
            patch_size=self.patch_size, vision_feature_select_strategy="default", image_token="<image>",
            num_additional_image_tokens=1,
        )

    def published_name(self, name: str) -> str:
        name = name.removeprefix("model.")
        if name.startswith("lm_head."):
            return f"language_model.{name}"
        if name.startswith("language_model."):
            return name.replace("language_model.", "language_model.model.", 1)
        if name.startswith("vision_tower."):
            return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
        return name

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


class Clip(Family):
    """CLIP: two towers and a contrastive loss."""

    name = "clip"
    model_class = "CLIPModel"
    weights_dtype = torch.float32
    image_side, patch_size, context_length = 28, 7, 40
    texts = ("a photo of a red square", "A blue circle, isn't it?", "three people near the table")

    def write_tokenizer(self, checkpoint: Path) -> None:
        save_tokenizer(build_clip_tokenizer(), checkpoint, {
            "unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>", "padding_side": "right", "model_max_length": self.context_length,
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        return {
            "architectures": [self.model_class], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
            "model_type": "clip", "projection_dim": 32,
            "text_config": {
                # eos_token_id 2, as in OpenAI's files, means: pool the position of the largest id. Any other value
                # means: pool the first position with that id.
                "model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
                "hidden_act": "quick_gelu", "hidden_size": 36, "intermediate_size": 72, "layer_norm_eps": 1e-05,
                "max_position_embeddings": self.context_length, "num_attention_heads": 3, "num_hidden_layers": 3,
                "projection_dim": 32, "vocab_size": tokenizer.get_vocab_size(),
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
            transformers.AutoImageProcessor.from_pretrained(checkpoint, backend=backend),
            transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint),
        )

    def inputs(self, processor: Any, folder: Path) -> Tensors:
        """Three texts and three pictures, the third of which is the first one mirrored."""
        pictures = [Image.open(folder / name) for name in PICTURE_SIZES]
        pictures.append(pictures[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        batch = processor(text=list(self.texts), images=pictures, padding=True, return_tensors="pt")
        return {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k != "token_type_ids"}

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=["q_proj", "v_proj"])

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        def gelu(config: Json) -> None:
            for tower in ("text_config", "vision_config"):
                config[tower]["hidden_act"] = "gelu"

        return {
            "hidden_act=gelu (both towers)": gelu,
            "text_config.layer_norm_eps=1e-12": setting("text_config.layer_norm_eps", 1e-12),
            "vision_config.layer_norm_eps=1e-12": setting("vision_config.layer_norm_eps", 1e-12),
        }


FAMILIES: dict[str, Llava | Clip] = {"llava": Llava(), "clip": Clip()}


def setting(path: str, value: Any) -> Callable[[Json], None]:
    """A function that sets one dotted key of a config."""

    def apply(config: Json) -> None:
        *parents, leaf = path.split(".")
        for key in parents:
            config = config[key]
        config[leaf] = value

    return apply
