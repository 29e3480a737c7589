"""What a family of models is to the parity scripts: three kinds, of which the family_*.py hold one class per family."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from fixture_files import Json, Tensors, read_json, write_json
from PIL import Image
from tokenizers import Tokenizer

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
LANCZOS, BICUBIC = 1, 3  # Pillow's numbers
DECODER_LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


@dataclasses.dataclass(frozen=True)
class Sample:
    picture: str | None
    question: str
    answer: str


class Family(ABC):
    """What differs between the families; reference.py and sensitivity.py compute."""

    name: str
    model_class: str
    weights_dtype: torch.dtype
    first_seed = 52600
    picture_sizes: dict[str, tuple[int, int]] = {}  # width, height

    @abstractmethod
    def write_tokenizer(self, checkpoint: Path) -> None: ...

    @abstractmethod
    def config(self, checkpoint: Path) -> Json: ...

    def write_processor_files(self, checkpoint: Path) -> None:
        """Everything beside config.json, the tokenizer and the weights."""

    @abstractmethod
    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        """The checkpoint's processor, with pictures resized by "pil" or by "torchvision"."""

    @abstractmethod
    def lora_config(self) -> peft.LoraConfig: ...

    @abstractmethod
    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        """Named edits of config.json, each of which imitates a mistake of an implementation."""

    def wrong_inputs(self, inputs: Tensors) -> dict[str, Tensors]:
        """Named mistakes in the inputs, beside those that all families share."""
        return {}

    def published_name(self, name: str) -> str:
        """Module or tensor name of `transformers` 5 -> the name in published checkpoints."""
        return name

    def tokenizer_folders(self, checkpoint: Path) -> dict[str, Path]:
        return {"tokenizer": checkpoint}

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


class Generative(Family):
    """A decoder that continues a prompt, with a picture in front or without."""

    eos_token: str
    samples: dict[str, Sample]
    probes: dict[str, str]  # name -> module whose output is kept
    chat_template: str | None = None

    @abstractmethod
    def prompt(self, question: str) -> str:
        """What the processor is given, with one `<image>` where the family's prompt has one."""

    def answer_text(self, answer: str) -> str:
        return f" {answer}{self.eos_token}"

    def messages(self, question: str) -> list[Json]:
        picture = [{"type": "image"}] if self.picture_sizes else []
        return [{"role": "user", "content": [*picture, {"type": "text", "text": question}]}]

    def tokenizer_of(self, processor: Any) -> Any:
        return processor.tokenizer

    def encode(self, processor: Any, pictures: list[Image.Image], texts: list[str]) -> Tensors:
        """Model inputs, padded on the left."""
        processor.tokenizer.padding_side = "left"
        batch = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        return {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k != "token_type_ids"}

    def write_generation_files(self, checkpoint: Path) -> None:
        tokenizer, names = load_tokenizer(checkpoint), read_json(checkpoint / "tokenizer_config.json")
        data = {"_from_model_config": True, "eos_token_id": tokenizer.token_to_id(names["eos_token"]),
                "pad_token_id": tokenizer.token_to_id(names["pad_token"]), "transformers_version": "4.46.0"}
        if names.get("bos_token"):
            data["bos_token_id"] = tokenizer.token_to_id(names["bos_token"])
        write_json(checkpoint / "generation_config.json", data)
        if self.chat_template:
            (checkpoint / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")


class TwoTowers(Family):
    """One tower for pictures, one for texts, and a contrastive loss."""

    context_length: int
    padding: bool | str
    texts: tuple[str, ...]

    def inputs(self, processor: Any, folder: Path) -> Tensors:
        """Three texts and three pictures, the third of which is the first one mirrored."""
        pictures = [Image.open(folder / name) for name in self.picture_sizes]
        pictures.append(pictures[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        batch = processor(text=list(self.texts), images=pictures, padding=self.padding, return_tensors="pt")
        return {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k != "token_type_ids"}


def load_tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


def load_image_processor(checkpoint: Path, backend: str) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(checkpoint, backend=backend)


def setting(path: str, value: Any) -> Callable[[Json], None]:
    """A function that sets one dotted key of a config."""

    def apply(config: Json) -> None:
        *parents, leaf = path.split(".")
        for key in parents:
            config = config[key]
        config[leaf] = value

    return apply
