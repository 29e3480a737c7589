#!/usr/bin/env python3
"""Load a folder that mcit saved with `transformers`, and compare its logits with mcit's own.

    mcit generate --model DIR --image F --prompt T --dump mcit.safetensors
    $(python3 benchmarks/speed/peer_env.py) tests/parity/check_export.py DIR --dump mcit.safetensors [--image F --text T]

mcit.safetensors holds `pixel_values` [1, 3, S, S], `input_ids` [T] or [1, T] with one image token per visual token, and
`logits` [V], [T, V] or [1, T, V] (one row: of the last position). Checked are, in this order,

- that config, weights, tokenizer and preprocessor load, with no tensor missing, unexpected or of another shape;
- with --image, that the folder's preprocessor makes the same pixels (--square: of the picture padded to a square with
  the mean colour, as LLaVA does) to 1e-6;
- that the ids are in the tokenizer and the picture has its number of image tokens; with --text (the whole framed
  prompt, `<image>` once), that the tokenizer makes the same ids of it;
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

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import peft
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

PIXEL_ATOL = 1e-6
IMAGE = "<image>"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Hugging Face folder saved by mcit")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--dump", type=Path, help="what mcit computed")
    mode.add_argument("--write", type=Path, metavar="OUT", help="write what transformers computes")
    parser.add_argument("--adapter", type=Path, help="PEFT folder written by mcit export")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--square", action="store_true", help="pad the picture to a square with the mean colour")
    parser.add_argument("--text", help=f"the whole framed prompt, with {IMAGE} once")
    parser.add_argument("--atol", type=float, default=1e-4)
    args = parser.parse_args()
    if args.write and not (args.image and args.text):
        parser.error("--write needs --image and --text")
    return args


class Folder:
    """The saved folder as `transformers` sees it."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        self.model, info = transformers.LlavaForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        self.model.eval()
        self.load_problems = {key: sorted(names) for key, names in info.items() if key.endswith("_keys") and names}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self.processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
        vision = self.model.config.vision_config
        self.image_tokens = (vision.image_size // vision.patch_size) ** 2
        self.image_token_id = self.model.config.image_token_id
        if adapter:
            self.model = peft.PeftModel.from_pretrained(self.model, adapter)
            self.model.eval()
            saved = set(load_file(adapter / "adapter_model.safetensors"))
            if unread := saved - set(peft.get_peft_model_state_dict(self.model)):
                self.load_problems["adapter_keys"] = sorted(unread)

    def pixels(self, picture: Path, square: bool) -> torch.Tensor:
        image = Image.open(picture).convert("RGB")
        if square:
            side = max(image.size)
            padded = Image.new("RGB", (side, side), tuple(int(c * 255) for c in self.processor.image_mean))
            padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = padded
        return self.processor(image, return_tensors="pt")["pixel_values"]

    def ids(self, text: str) -> torch.Tensor:
        return self.tokenizer(text.replace(IMAGE, IMAGE * self.image_tokens), return_tensors="pt")["input_ids"]

    @torch.no_grad()
    def logits(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """[T, V]"""
        mask = torch.ones_like(ids)
        return self.model(input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=False).logits[0]


def check_logits(folder: Folder, dump: dict[str, torch.Tensor], atol: float) -> bool:
    ids = dump["input_ids"].long().reshape(1, -1)
    expected = folder.logits(dump["pixel_values"].float(), ids)
    found = dump["logits"].float().reshape(-1, dump["logits"].shape[-1])
    if found.shape[-1] != expected.shape[-1] or len(found) not in (1, len(expected)):
        print(f"logits: mcit has {list(dump['logits'].shape)}, transformers {list(expected.shape)}")
        return False
    expected = expected[-len(found) :]
    distance = (found - expected).abs()
    row = int(distance.amax(dim=1).argmax())
    same = int((found.argmax(dim=1) == expected.argmax(dim=1)).sum())
    worst = float(distance.max())
    print(f"logits: {len(found)} positions x {found.shape[1]}, standard deviation {float(expected.std()):.3g}; "
          f"largest difference {worst:.3g} at position {row}; the best token is the same at {same} positions")
    return worst <= atol  # false for NaN


def check_pixels(folder: Folder, dump: dict[str, torch.Tensor], picture: Path, square: bool) -> bool:
    expected = folder.pixels(picture, square)
    if expected.shape != dump["pixel_values"].shape:
        print(f"pixels: mcit has {list(dump['pixel_values'].shape)}, transformers {list(expected.shape)}")
        return False
    worst = float((expected - dump["pixel_values"].float()).abs().max())
    print(f"pixels: largest difference {worst:.3g}")
    return worst <= PIXEL_ATOL


def check_tokens(folder: Folder, dump: dict[str, torch.Tensor], text: str | None) -> bool:
    ids = dump["input_ids"].reshape(-1).tolist()
    image_id = folder.tokenizer.convert_tokens_to_ids(IMAGE)
    images = ids.count(image_id)
    print(f"tokens: {len(ids)}, {images} of them {IMAGE}; {folder.tokenizer.decode([i for i in ids if i != image_id])!r}")
    faults = []
    if unknown := [i for i in ids if i >= len(folder.tokenizer)]:
        faults.append(f"ids {unknown[:4]} are not in the tokenizer")
    if image_id != folder.image_token_id:
        faults.append(f"{IMAGE} is {image_id} in the tokenizer, {folder.image_token_id} in config.json")
    if images != folder.image_tokens * len(dump["pixel_values"]):
        faults.append(f"a picture takes {folder.image_tokens} of {IMAGE}")
    if text is not None and (own := folder.ids(text)[0].tolist()) != ids:
        position = next((i for i, pair in enumerate(zip(own, ids)) if pair[0] != pair[1]), min(len(own), len(ids)))
        faults.append(f"transformers has other ids from position {position} on: {own[position : position + 6]}, "
                      f"mcit {ids[position : position + 6]}")
    print(*(f"tokens: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
    return not faults


def main() -> int:
    args = parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = Folder(args.folder, args.adapter)
    passed = not folder.load_problems
    print(f"load: {folder.load_problems or 'all tensors found'}")
    if args.write:
        pixels, ids = folder.pixels(args.image, args.square), folder.ids(args.text)
        save_file({"pixel_values": pixels, "input_ids": ids, "logits": folder.logits(pixels, ids)[None].contiguous()},
                  args.write)
        print(f"written: {args.write}")
        return 0 if passed else 1
    dump = load_file(args.dump)
    passed &= check_pixels(folder, dump, args.image, args.square) if args.image else True
    passed &= check_tokens(folder, dump, args.text)
    passed &= check_logits(folder, dump, args.atol)
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
