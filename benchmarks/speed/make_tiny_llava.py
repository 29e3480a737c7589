#!/usr/bin/env python3
"""Write a random LLaVA folder and CoIN-style data to time two engines on, with no downloads.

    make_tiny_llava.py --out tiny

makes

    tiny/model/   config.json, model.safetensors, tokenizer.json, preprocessor_config.json as `transformers` saves them
    tiny/images/  JPEGs in the sizes of VQA sets: noise on coarse tiles, with discs
    tiny/train.json, tiny/test.json  questions and answers of random words

The default shape, "tiny", is a 12 x 384 vision tower (21.6 M parameters), a projector (0.46 M) and an 8 x 512 decoder
(27.4 M with its embeddings), 144 visual tokens, about 208 tokens a record, of which about 4 are learnt. The same
arguments and package versions (requirements.txt) give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from PIL import Image, ImageDraw
from sample_format import FRAME, IMAGE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", IMAGE)
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
PICTURE_SIZES = [(640, 480), (640, 427), (480, 640), (500, 375), (1024, 768)]
BICUBIC = 3  # Pillow's number


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vit-layers", type=int, default=12)
    parser.add_argument("--vit-dim", type=int, default=384)
    parser.add_argument("--vit-heads", type=int, default=6)
    parser.add_argument("--llm-layers", type=int, default=8)
    parser.add_argument("--llm-dim", type=int, default=512)
    parser.add_argument("--llm-heads", type=int, default=8)
    parser.add_argument("--ffn", type=int, default=1376, help="inner width of the decoder's MLP")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--image", type=int, default=168, help="side of the picture the tower sees")
    parser.add_argument("--patch", type=int, default=14)
    parser.add_argument("--n-train", type=int, default=64)
    parser.add_argument("--n-test", type=int, default=32)
    parser.add_argument("--unique-images", type=int, default=0, help="pictures to share out; 0 = one per record")
    parser.add_argument("--q-words", type=int, nargs=2, default=(8, 36), metavar=("MIN", "MAX"))
    parser.add_argument("--a-words", type=int, nargs=2, default=(1, 6), metavar=("MIN", "MAX"))
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu", help="where the random weights are drawn; other devices, other bits")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_vocabulary(size: int) -> tuple[dict[str, int], list[str]]:
    """Token ids, and the words that questions are made of. The frame's words come first, so that none is unknown."""
    tokens = list(dict.fromkeys([*SPECIAL, *re.findall(r"\w+|[^\w\s]", FRAME.format(question=""))]))
    words = ["w%04d" % index for index in range(len(tokens), size)]
    return {token: index for index, token in enumerate([*tokens, *words])}, words


def write_tokenizer(vocabulary: dict[str, int], folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens={"image_token": IMAGE}, padding_side="right",
    ).save_pretrained(folder)


def write_model(args: argparse.Namespace, vocabulary: dict[str, int], folder: Path) -> torch.nn.Module:
    """Random weights in the layout that `transformers` saves."""
    special = {name: vocabulary[token] for name, token in zip(("bos", "eos", "pad"), SPECIAL[1:4], strict=True)}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=args.vit_dim, intermediate_size=4 * args.vit_dim, num_hidden_layers=args.vit_layers,
            num_attention_heads=args.vit_heads, image_size=args.image, patch_size=args.patch,
            projection_dim=args.vit_dim,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=args.vocab, hidden_size=args.llm_dim, intermediate_size=args.ffn,
            num_hidden_layers=args.llm_layers, num_attention_heads=args.llm_heads,
            num_key_value_heads=args.llm_heads, max_position_embeddings=2048, rms_norm_eps=1e-5,
            **{f"{name}_token_id": index for name, index in special.items()},
        ),
        image_token_id=vocabulary[IMAGE], vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_seq_length=(args.image // args.patch) ** 2, projector_hidden_act="gelu", tie_word_embeddings=False,
    )
    with torch.device(args.device):
        torch.set_default_dtype(getattr(torch, args.dtype))
        model = transformers.LlavaForConditionalGeneration(config)
        torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = special["eos"]
    model.generation_config.pad_token_id = special["pad"]
    model.save_pretrained(folder)
    return model


def write_preprocessor(side: int, folder: Path) -> None:
    settings = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": side},
        "resample": BICUBIC, "do_center_crop": True, "crop_size": {"height": side, "width": side},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1))


def make_picture() -> Image.Image:
    """Coarse tiles with noise and eight discs: a JPEG of it costs as much to decode as a photograph."""
    width, height = random.choice(PICTURE_SIZES)
    tiles = np.random.randint(0, 255, (height // 32 + 1, width // 32 + 1, 3))
    tiles = np.kron(tiles, np.ones((32, 32, 1)))[:height, :width]
    picture = Image.fromarray((tiles * 0.7 + np.random.randint(0, 70, (height, width, 3))).astype("uint8"))
    draw = ImageDraw.Draw(picture)
    for _ in range(8):
        x, y = random.randrange(width), random.randrange(height)
        draw.ellipse([x, y, x + 60, y + 60], fill=tuple(random.choices(range(256), k=3)))
    return picture


def make_records(args: argparse.Namespace, words: list[str], num_images: int) -> tuple[list[dict], list[dict]]:
    """Training and test records in CoIN's two layouts."""

    def text(bounds: tuple[int, int]) -> str:
        return " ".join(random.choices(words, k=random.randint(*bounds)))

    train, test = [], []
    for index in range(args.n_train + args.n_test):
        question, answer = text(args.q_words), text(args.a_words)
        picture = "%05d.jpg" % (index % num_images)
        if index < args.n_train:
            turns = [{"from": "human", "value": f"{IMAGE}\n{question}"}, {"from": "gpt", "value": answer}]
            train.append({"id": str(index), "image": picture, "conversations": turns})
        else:
            test.append({"question_id": str(index), "image": picture, "text": question, "answer": answer})
    return train, test


def main() -> None:
    args = parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    transformers.utils.logging.disable_progress_bar()
    folder, images = args.out / "model", args.out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    images.mkdir(exist_ok=True)

    vocabulary, words = make_vocabulary(args.vocab)
    write_tokenizer(vocabulary, folder)
    model = write_model(args, vocabulary, folder)
    write_preprocessor(args.image, folder)
    num_images = args.unique_images or args.n_train + args.n_test
    for index in range(num_images):
        make_picture().save(images / ("%05d.jpg" % index), quality=88)
    train, test = make_records(args, words, num_images)
    (args.out / "train.json").write_text(json.dumps(train))
    (args.out / "test.json").write_text(json.dumps(test))

    parts = {"vision": model.model.vision_tower, "projector": model.model.multi_modal_projector,
             "decoder": model.model.language_model, "head": model.lm_head}
    print(json.dumps({name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
                     | {"image_tokens": model.config.image_seq_length, "train": len(train), "test": len(test)}))


if __name__ == "__main__":
    main()
