"""Tiny tokenizers with the parts of the real ones, learned from a few lines of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fixture_files import Json, write_json
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CORPUS = """\
The picture shows a red square beside a blue circle on a pale background.
What is in the image? There are two shapes and a thin green line between them.
Describe the scene in one short sentence. A dog runs along the sandy beach.
How many people are standing near the table? Three people are standing there.
Is the traffic light green or red? The light is red, so the cars have stopped.
Which animal is this? It's a small brown bird that's sitting on a branch.
Answer the question using a single word or phrase. The answer is yellow.
The man doesn't wear a hat, but the woman's hat is large and white.
They've taken 12 photos in 2024 and 305 photos in 2025; that's 317 in total.
Read the sign: "NO PARKING 08:00-18:00". The sign is written in capital letters.
USER: please explain the chart. ASSISTANT: The chart compares four methods over time.
Learning new tasks in sequence makes a model forget the earlier tasks.
The first task asks for objects, the second for colours, the third for counting.
A model that keeps what it learned, while it learns what is new, forgets less.
def area(w, h):\n    return w * h  # width times height
naïve café façade, Zürich, São Paulo, coöperate, Ångström, señor
Привет, мир. Καλημέρα κόσμε. 你好，世界。日本語の文章です。
"""

CASES: tuple[str, ...] = (
    "",
    " ",
    "hello world",
    "Hello World, what's in the image?",
    "  two  spaces   inside and after  ",
    "line\nbreak\n\nempty line\n\n\n",
    "tab\tand\r\ncarriage return",
    "don't you're I'LL we've it's THEY'D",
    "1234567890 3.14 12,345 0x1F",
    "naïve café Ångström",
    "cafe\u0301 Zu\u0308rich",  # combining marks: NFC changes the ids, no normalizer keeps them
    "日本語のテキスト 你好",
    "مرحبا بالعالم",
    "Привет, мир",
    "\U0001f642 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "ﬁ ligature ½ ① Ⅳ",
    "\u00a0nbsp\u2003em space\u200bzero width",
    "foo_bar.baz(x) = y+1; // comment <b>html</b>",
    "a" * 40,
    "UPPER lower MiXeD",
    "...!?!? -- \u2014 \u2026",
    "<image>",
    "before<image>after",
    "before <image> after",
    "<image>\n<image>\nWhat is it?",
    "</s> <s> <unk> <|endoftext|> <|im_end|> [CLS] [SEP]",
    "<0x41> \u2581 literal markers \u0120",
    "nul\u0000byte",
    "USER: <image>\nWhat is shown? ASSISTANT:",
)

SPACE = "\u2581"
Word = tuple[str, ...]


def build_llama_tokenizer(added: Sequence[str], bos: str = "<s>", prepend: bool = False, num_merges: int = 200
                          ) -> Tokenizer:
    """SentencePiece-style BPE with byte fallback as exported for LLaMA and Vicuna.

    Older exports have the leading-space rule in the normalizer (Prepend, Replace), which repeats it after each added
    token; newer ones have a Metaspace pre-tokenizer, which applies it to the first piece alone.
    """
    specials = ["<unk>", "<s>", "</s>"]
    merges = _learn_merges(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"), None, num_merges)
    characters = sorted({c for left, right in merges for c in left + right} | {SPACE})
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = _numbered([*specials, *byte_tokens, *(left + right for left, right in merges), *characters])
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=specials[0], fuse_unk=True, byte_fallback=True)
    )
    if prepend:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    _add_special(tokenizer, [*specials, *added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, vocabulary[bos])]
    )
    return tokenizer


def build_qwen2_tokenizer(added: Sequence[str]) -> Tokenizer:
    """Qwen2: NFC, single digits, byte-level BPE, nothing put in front."""
    split = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
             r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    plain = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer = _byte_level_bpe(normalizers.NFC(), pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False), pre_tokenizers.ByteLevel(**plain)]
    ))
    tokenizer.decoder = decoders.ByteLevel(**plain)
    tokenizer.post_processor = processors.ByteLevel(**plain)
    _add_special(tokenizer, added)
    return tokenizer


def build_smollm_tokenizer(leading: Sequence[str], added: Sequence[str]) -> Tokenizer:
    """SmolLM2: GPT-2's byte-level BPE with single digits, neither normalizer nor post-processor."""
    tokenizer = _byte_level_bpe(None, pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)]
    ), leading)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    _add_special(tokenizer, [*leading, *added])
    return tokenizer


def build_clip_tokenizer() -> Tokenizer:
    """CLIP: lower-cased byte-level BPE whose words end in `</w>`."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    split = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    merges = _learn_merges(pre_tokenizer, normalizer, 160, "</w>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = (left + right for left, right in merges)
    vocabulary = _numbered([*alphabet, *(c + "</w>" for c in alphabet), *joined, start, end])
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=end, continuing_subword_prefix="",
                   end_of_word_suffix="</w>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    _add_special(tokenizer, [start, end])
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def build_siglip_tokenizer() -> Tokenizer:
    """SigLIP: lower case without punctuation, Unigram, `</s>` behind the text and as padding."""
    punctuation = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
    normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(punctuation), ""),
         normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    words = [word for line in CORPUS.splitlines()
             for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))]
    text = "\n".join(words)
    merges = _learn_merges(pre_tokenizer, normalizer, 120)
    pieces = dict.fromkeys([*(left + right for left, right in merges), *sorted(set("".join(words)))])
    specials = ["<pad>", "</s>", "<unk>"]
    scores = [(piece, math.log(text.count(piece) / len(text))) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in specials), *scores], unk_id=2))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    _add_special(tokenizer, specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 </s>:0", pair="$A:0 </s>:0 $B:0 </s>:0", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def build_bert_tokenizer(added: Sequence[str]) -> Tokenizer:
    """BERT's WordPiece in lower case, with which InstructBLIP's Q-Former reads the text."""
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(CORPUS)))
    characters = sorted(set("".join(counts)))
    words = sorted((word for word, count in counts.items() if count > 1), key=lambda word: (-counts[word], word))
    endings = ["##s", "##ed", "##ing", "##er", "##ly"]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = _numbered([*specials, *characters, *(f"##{c}" for c in characters), *words, *endings])
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    _add_special(tokenizer, added)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, settings: Json) -> None:
    """tokenizer.json and tokenizer_config.json, of the class that takes the whole pipeline from the first."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    base = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "model_max_length": 512}
    write_json(folder / "tokenizer_config.json", {**base, **settings})


def padded_vocabulary_size(tokenizer: Tokenizer, multiple: int = 64) -> int:
    """Embedding rows: rounded up, as in published checkpoints."""
    return math.ceil(tokenizer.get_vocab_size(with_added_tokens=True) / multiple) * multiple


def tokenizer_cases(folder: Path) -> list[Json]:
    """What the `tokenizers` library makes of CASES."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cases = []
    for text in CASES:
        plain = tokenizer.encode(text, add_special_tokens=False)
        full = tokenizer.encode(text, add_special_tokens=True)
        cases.append({
            "text": text, "ids": plain.ids, "ids_with_special": full.ids, "tokens": plain.tokens,
            "char_offsets": [list(offset) for offset in plain.offsets],
            "decoded": tokenizer.decode(full.ids, skip_special_tokens=False),
            "decoded_skip_special": tokenizer.decode(full.ids, skip_special_tokens=True),
        })
    return cases


def _byte_level_bpe(normalizer: normalizers.Normalizer | None, pre_tokenizer: pre_tokenizers.PreTokenizer,
                    leading: Sequence[str] = ()) -> Tokenizer:
    merges = _learn_merges(pre_tokenizer, normalizer, 120)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = _numbered([*leading, *alphabet, *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def _learn_merges(pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None,
                  num_merges: int, end_of_word: str = "") -> list[tuple[str, str]]:
    """BPE over CORPUS. Ties go to the first pair in order; the library's trainers break them by hash."""
    counts: Counter[Word] = Counter()
    for line in CORPUS.splitlines():
        text = normalizer.normalize_str(line) if normalizer is not None else line
        for word, _ in pre_tokenizer.pre_tokenize_str(text):
            counts[(*word[:-1], word[-1] + end_of_word)] += 1
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        merged: Counter[Word] = Counter()
        for word, count in counts.items():
            merged[_merged(word, best)] += count
        counts = merged
    return merges


def _merged(word: Word, pair: tuple[str, str]) -> Word:
    result: list[str] = []
    position = 0
    while position < len(word):
        together = word[position : position + 2] == pair
        result.append(pair[0] + pair[1] if together else word[position])
        position += 2 if together else 1
    return tuple(result)


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    """token -> id in order of first appearance."""
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def _add_special(tokenizer: Tokenizer, contents: Sequence[str]) -> None:
    tokenizer.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in contents])
