#!/usr/bin/env python3
"""Writes the tokenizer of the built-in base from vocabulary.txt; needs nothing but Python.

    mcit make-data mini --vocabulary benchmarks/mcit/mini/vocabulary.txt
    python3 benchmarks/mcit/mini/make_tokenizer.py [--out benchmarks/mcit/mini/base]

A byte-level BPE in Hugging Face's format: four special tokens, the 256 bytes, and every word of the vocabulary with
its leading space as one token ("Ġdog"). The words are whole by `ignore_merges`, so there are no half words between;
a word that is not in the vocabulary falls into bytes. If the `tokenizers` package is there, the result is checked.
"""

import argparse
import json
from pathlib import Path

SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]  # ids 0..3


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(256 + byte - sum(b < byte for b in printable))
    return [characters[byte] for byte in range(256)]


def make(words):
    alphabet = byte_alphabet()
    tokens = [*SPECIAL, *alphabet]
    for word in words:
        tokens.append("".join(alphabet[byte] for byte in (" " + word).encode()))
    assert len(set(tokens)) == len(tokens), "a word is listed twice"
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [SPECIAL.index("<s>")], "tokens": ["<s>"]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [],
        },
    }


CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<image>",
    "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
    "model_max_length": 512, "padding_side": "right",
}


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=Path, default=here / "vocabulary.txt", help="one word a line")
    parser.add_argument("--out", type=Path, default=here / "base", help="folder of the model")
    options = parser.parse_args()
    words = options.vocabulary.read_text().split()
    tokenizer = make(words)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", CONFIG)):
        (options.out / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("not checked: the package 'tokenizers' is not installed")
    else:
        library = Tokenizer.from_file(str(options.out / "tokenizer.json"))
        for i, word in enumerate(words):
            assert library.encode(" " + word, add_special_tokens=False).ids == [len(SPECIAL) + 256 + i], word
        text = "<image> " + " ".join(words)
        assert library.encode(text).ids[:2] == [1, 3] and len(library.encode(text).ids) == len(words) + 2
        assert library.decode(library.encode(text).ids, skip_special_tokens=True) == " " + " ".join(words)
    print(f"{options.out}/tokenizer.json: {len(tokenizer['model']['vocab'])} tokens, {len(words)} words")


if __name__ == "__main__":
    main()
