#!/usr/bin/env python3
"""Load a folder that mcit saved with `transformers`, and compare its logits with mcit's own.

    mcit generate --model DIR --image F --prompt T --dump mcit.safetensors
    $(python3 benchmarks/speed/peer_env.py) tests/parity/check_export.py DIR --dump mcit.safetensors \\
        [--image F --text T]

The class is the one that config.json names. mcit.safetensors holds `input_ids` [T] or [1, T], with one image token per
visual token; `logits` [V], [T, V] or [1, T, V] (one row: of the last position); for a model of pictures `pixel_values`,
[1, 3, S, S] or in tiles [1, N, 3, S, S]; and where the family has them `image_sizes` [1, 2] (height, width),
`qformer_input_ids` [1, L] and `pixel_attention_mask` [1, N, S, S] (all ones if absent). Of two towers it holds texts
[T, L], pictures [P, 3, S, S] and `logits` [P, T]. Checked are, in this order,

- that config, weights, tokenizer and preprocessor load, with no tensor missing, unexpected or of another shape;
- with --image, that the folder's preprocessor makes the same pixels (--square: of the picture padded to a square with
  the mean colour, as LLaVA does) to 1e-6;
- that the ids are in the tokenizer and the picture has its number of image tokens; with --text (the whole framed
  prompt, `<image>` once where the family writes it), that the processor makes the same ids of it, also the Q-Former's;
- that the logits for mcit's own pixels and ids agree to --atol in float32.

With --adapter, PEFT puts a folder that `mcit export` wrote on the model first; the dump is then one of
`mcit generate --adapter`.

Exit status 0 if all agree, 1 if not. With --write OUT the other way round: the pixels, ids and logits that
`transformers` gives for --image and --text are written under the same keys.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import peft
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

PIXEL_ATOL = 1e-6
IMAGE = "<image>"
INPUTS = ("pixel_values", "input_ids", "image_sizes", "qformer_input_ids", "pixel_attention_mask")
TILED = ("llava_onevision", "idefics3", "smolvlm")  # how many tokens a picture takes depends on its shape


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Hugging Face folder saved by mcit")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--dump", type=Path, help="what mcit computed")
    mode.add_argument("--write", type=Path, metavar="OUT", help="write what transformers computes")
    parser.add_argument("--adapter", type=Path, help="PEFT folder written by mcit export")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--square", action="store_true", help="pad the picture to a square with the mean colour")
    parser.add_argument("--text", help=f"the whole framed prompt, with {IMAGE} once; tiled pictures need --image too")
    parser.add_argument("--atol", type=float, default=1e-4)
    args = parser.parse_args()
    config = transformers.AutoConfig.from_pretrained(args.folder)
    pictures = hasattr(config, "vision_config")
    if args.image and not pictures:
        parser.error(f"--image: a model of type {config.model_type} takes no pictures")
    if args.write and not (args.text and (args.image or not pictures)):
        parser.error("--write needs --text, and --image for a model of pictures")
    if args.text and not args.image and config.model_type in TILED:
        parser.error(f"--text needs --image for a model of type {config.model_type}")
    return args


def model_class(config: Any) -> Any:
    for name in config.architectures or []:
        if hasattr(transformers, name):
            return getattr(transformers, name)
    pictures = hasattr(config, "vision_config")
    return transformers.AutoModelForImageTextToText if pictures else transformers.AutoModelForCausalLM


def make_processor(path: Path, config: Any, images: Any, tokenizer: Any) -> Any:
    """From config.json, for mcit writes no processor_config.json."""
    kind, vision = config.model_type, config.vision_config
    side = vision.image_size // vision.patch_size
    if kind == "llava":
        return transformers.LlavaProcessor(
            images, tokenizer, patch_size=vision.patch_size, image_token=IMAGE, num_additional_image_tokens=1,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        )
    if kind == "llava_onevision":
        return transformers.LlavaOnevisionProcessor(
            images, tokenizer, transformers.LlavaOnevisionVideoProcessor(), num_image_tokens=side**2,
            vision_feature_select_strategy=config.vision_feature_select_strategy, image_token=IMAGE,
            vision_aspect_ratio=config.vision_aspect_ratio,
        )
    if kind in ("idefics3", "smolvlm"):
        return transformers.Idefics3Processor(images, tokenizer, image_seq_len=(side // config.scale_factor) ** 2)
    if kind == "instructblip":
        qformer = transformers.PreTrainedTokenizerFast.from_pretrained(path / "qformer_tokenizer")
        return transformers.InstructBlipProcessor(images, tokenizer, qformer, num_query_tokens=config.num_query_tokens)
    return {"clip": transformers.CLIPProcessor, "siglip": transformers.SiglipProcessor}[kind](images, tokenizer)


class Folder:
    """The saved folder as `transformers` sees it."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        self.config = transformers.AutoConfig.from_pretrained(path)
        self.model, info = model_class(self.config).from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        self.model.eval()
        self.load_problems = {key: sorted(names) for key, names in info.items() if key.endswith("_keys") and names}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self.kind: str = self.config.model_type
        self.takes_pictures = hasattr(self.config, "vision_config")
        self.image_token_id: int | None = getattr(self.config, "image_token_id", None)
        if self.takes_pictures:
            self.images = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
            self.processor = make_processor(path, self.config, self.images, self.tokenizer)
        if adapter:
            self.model = peft.PeftModel.from_pretrained(self.model, adapter)
            self.model.eval()
            saved = set(load_file(adapter / "adapter_model.safetensors"))
            if unread := saved - set(peft.get_peft_model_state_dict(self.model)):
                self.load_problems["adapter_keys"] = sorted(unread)

    def open(self, picture: Path, square: bool) -> Image.Image:
        image = Image.open(picture).convert("RGB")
        if not square:
            return image
        side = max(image.size)
        padded = Image.new("RGB", (side, side), tuple(int(c * 255) for c in self.images.image_mean))
        padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return padded

    def inputs(self, text: str, image: Image.Image | None) -> Tensors:
        """What the processor makes of a prompt and a picture; any picture will do where its shape does not matter."""
        if self.takes_pictures:
            picture = image or Image.new("RGB", (64, 64))
            padding = "max_length" if self.kind == "siglip" else False
            nested = [[picture]] if self.kind in ("idefics3", "smolvlm") else [picture]
            made = self.processor(images=nested, text=[text], padding=padding, return_tensors="pt")
        else:
            made = self.tokenizer([text], return_tensors="pt")
        return {name: made[name] for name in INPUTS if name in made}

    @torch.no_grad()
    def logits(self, inputs: Tensors) -> torch.Tensor:
        """[T, V], or [P, T] of two towers."""
        output = self.model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
        return output.logits_per_image if hasattr(output, "logits_per_image") else output.logits[0]


def model_inputs(folder: Folder, dump: Tensors) -> Tensors:
    """The dump's part that goes into the model, in the model's shapes."""
    inputs = {name: dump[name] for name in INPUTS if name in dump}
    for name in ("input_ids", "qformer_input_ids"):
        if name in inputs:
            inputs[name] = inputs[name].long().reshape(-1, inputs[name].shape[-1])
    if "pixel_values" in inputs:
        pixels = inputs["pixel_values"].float()
        inputs["pixel_values"] = pixels[None] if folder.kind in TILED and pixels.dim() == 4 else pixels
    return inputs


def check_logits(folder: Folder, dump: Tensors, atol: float) -> bool:
    try:
        expected = folder.logits(model_inputs(folder, dump))
    except ValueError as error:  # not as many image tokens as the picture has features
        print(f"logits: transformers refuses the dump: {error}")
        return False
    found = dump["logits"].float().reshape(-1, dump["logits"].shape[-1])
    if found.shape[-1] != expected.shape[-1] or len(found) not in (1, len(expected)):
        print(f"logits: mcit has {list(dump['logits'].shape)}, transformers {list(expected.shape)}")
        return False
    expected = expected[-len(found) :]
    distance = (found - expected).abs()
    row = int(distance.amax(dim=1).argmax())
    same = int((found.argmax(dim=1) == expected.argmax(dim=1)).sum())
    worst = float(distance.max())
    spread = float(expected.std(correction=0))
    print(f"logits: {len(found)} positions x {found.shape[1]}, standard deviation {spread:.3g}; largest difference "
          f"{worst:.3g} at position {row}; the best token is the same at {same} positions")
    return worst <= atol  # false for NaN


def check_pixels(folder: Folder, dump: Tensors, image: Image.Image) -> bool:
    expected = folder.images(image, return_tensors="pt")["pixel_values"]
    found = model_inputs(folder, dump)["pixel_values"]
    if expected.shape != found.shape:
        print(f"pixels: mcit has {list(found.shape)}, transformers {list(expected.shape)}")
        return False
    worst = float((expected - found).abs().max())
    print(f"pixels: largest difference {worst:.3g}")
    return worst <= PIXEL_ATOL


def check_tokens(folder: Folder, dump: Tensors, text: str | None, image: Image.Image | None) -> bool:
    ids = dump["input_ids"].reshape(-1).tolist()
    image_id = folder.image_token_id
    print(f"tokens: {len(ids)}, {ids.count(image_id)} of them {IMAGE}; "
          f"{folder.tokenizer.decode([i for i in ids if i != image_id])!r}")
    faults = []
    if unknown := [i for i in ids if i >= len(folder.tokenizer)]:
        faults.append(f"ids {unknown[:4]} are not in the tokenizer")
    if image_id is not None and (named := folder.tokenizer.convert_tokens_to_ids(IMAGE)) != image_id:
        faults.append(f"{IMAGE} is {named} in the tokenizer, {image_id} in config.json")
    if text is not None:
        made, given = folder.inputs(text, image), model_inputs(folder, dump)
        for name in ("input_ids", "qformer_input_ids"):
            if name in made:
                faults += first_difference(name, made[name][0].tolist(), given[name][0].tolist())
    print(*(f"tokens: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
    return not faults


def first_difference(name: str, own: list[int], ids: list[int]) -> list[str]:
    if own == ids:
        return []
    position = next((i for i, pair in enumerate(zip(own, ids)) if pair[0] != pair[1]), min(len(own), len(ids)))
    return [f"{name}: transformers has others from position {position} on: {own[position : position + 6]}, "
            f"mcit {ids[position : position + 6]}"]


def main() -> int:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    args = parse_args()
    folder = Folder(args.folder, args.adapter)
    image = folder.open(args.image, args.square) if args.image else None
    passed = not folder.load_problems
    print(f"load: {folder.load_problems or 'all tensors found'}")
    if args.write:
        inputs = folder.inputs(args.text, image)
        save_file({**inputs, "logits": folder.logits(inputs)[None].contiguous()}, args.write)
        print(f"written: {args.write}")
        return 0 if passed else 1
    dump = load_file(args.dump)
    passed &= check_pixels(folder, dump, image) if image else True
    passed &= check_tokens(folder, dump, args.text, image)
    passed &= check_logits(folder, dump, args.atol)
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
