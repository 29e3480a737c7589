"""How one record becomes text: the contract between the peer and `mcit bench-step`.

The frame is LLaVA's vicuna_v1 with one turn. A prompt holds `<image>` once per visual token, directly before the
newline and the question, whatever the record has:

    A chat between … questions. USER: <image><image>…<image>\\nQUESTION ASSISTANT:

It is encoded with the tokenizer's own special tokens (`<s>` in front). An answer is ` ANSWER</s>`, encoded without
special tokens and appended; its ids, `</s>` included, are the labels, everything before them is -100. The loss is
the mean over the labels of the whole batch, each predicted from the position before it.
"""

from __future__ import annotations

IMAGE = "<image>"
FRAME = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: {question} ASSISTANT:"
)


def prompt_text(question: str, image_tokens: int) -> str:
    """The framed prompt of a record's question, with or without its `<image>` line."""
    bare = question.replace(IMAGE, "").lstrip("\n")
    return FRAME.format(question=IMAGE * image_tokens + "\n" + bare)


def answer_text(answer: str, eos: str) -> str:
    """What is learnt after the prompt."""
    return f" {answer}{eos}"
