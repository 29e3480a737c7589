#!/usr/bin/env python3
"""Values of public packages for the scorers' tests, written to scorers.json beside this file.

    python3 tests/golden/scorers.py      # makes an environment in the user's cache, computes, writes

BLEU, CIDEr and ROUGE-L of captions are pycocoevalcap's, METEOR is its jar with the exact stage alone and all words of one
weight, tokens are those of Stanford's PTBTokenizer (fetched by Maven), ROUGE-L of answers is rouge-score's, BLEU-4 once
more sacrebleu's, edit distances are rapidfuzz's. What no package has (VQA's normaliser, F1 of words) is written out here
in the plainest way. Needs Java and Maven.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import string
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
PTB_ARTIFACT = "edu.stanford.nlp:stanford-corenlp:3.4.1"
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
METEOR = ["-", "-", "-stdio", "-l", "en", "-m", "exact", "-w", "1.0", "-p", "0.85 0.2 0.6 0.5"]
PAIRS = 1000
CAPTIONS = 250
DIGITS = 10  # of a stored number

WORDS = """a the an two three dog cat man woman red blue left right of on in is are with and street horse field table
sitting standing holding yellow bus 2 10 3.5 1,000 none yes no isn't don't dog's o'clock it's""".split()
HOSTILE = ["", " ", ".", "...", "()", "[0.1, 0.2]", "{}", "\"", "'", "`", "a.", "1.5", "-3", "1e5", "nan", "inf", "%", "50 %",
           "\u00e9cole", "\u00c9COLE", "\u65e5\u672c\u8a9e", "\u0416\u0443\u043a", "\U0001f600", "\u00a0", "\u2003", "caf\u00e9",
           "na\u00efve", "x" * 40, "A B C", "THE", "?!", "a, b, c", "tab\there", "line\nbreak", "\\frac{1}{2}", "somebodyd",
           "couldnt've", "the the", "zero", "None", "3.", "U.S.", "1.000", "a-b", "a/b", "_x_", "<s>", "&amp;"]

LINES = """A man in a red hat isn't riding the dog's bike.
Two children, a boy and a girl, are playing with a ball in the park.
The woman who's wearing a blue t-shirt can't see the camera.
A close-up of a cat's face; its eyes are green!
Someone is holding a $5 bill and 3 coins.
There are 1,000 people and 3.5 dogs at the beach.
A plate of food: rice, beans and chicken.
A sign that says "STOP" on the corner of 5th St. and Main Ave.
Mr. Smith and Dr. Jones don't like each other.
They're standing near the train (the blue one) at 10:30 a.m.
A black-and-white photo of a couple's wedding
The kids cannot swim, so they're gonna stay on the shore.
A skateboarder doing a trick -- in mid air -- above the ramp...
A bus and/or a truck is parked on the street.
A man with a beard ; a woman without one .
He'll go, she'd stay, we've been there and I'm here.
An old man's hat and the students' books
A dog catches a frisbee in the U.S. Army base
70% of the cake is gone.
A tall building with a clock tower. It's three o'clock.
What is it? It is a bird!
a woman, wearing sunglasses, walks her two-year-old dog
A baseball player #7 swings a bat
Quality issues are too severe to recognize visual content.
Two men [one tall, one short] shake hands
A mother-in-law's cooking is the best, isn't it?
The bottle reads: Coca-Cola, 12 fl oz
A person is looking at a computer screen with an error message
A can of Heinz baked beans (no added sugar).
The box of macaroni & cheese is on top of the microwave
""".splitlines()

CONTRACTIONS = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's
who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've""".split()
DOUBLE = """he'd've it'd've she'd've somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've you'd've
couldn't've hadn't've mightn't've shouldn't've wouldn't've y'all'll y'all'd've 'ow's'at""".split()
NUMBERS = dict(zip("none zero one two three four five six seven eight nine ten".split(),
                   "0 0 1 2 3 4 5 6 7 8 9 10".split()))


def table_of_contractions() -> dict[str, str]:
    table = {"somebody'd": "somebodyd"}
    for word in CONTRACTIONS:
        table.setdefault(word.replace("'", ""), word)
    for word in DOUBLE:
        for place in (i for i, c in enumerate(word) if c == "'"):
            table.setdefault(word[:place] + word[place + 1:], word)
    return table


CONTRACTED = table_of_contractions()


def vqa_normal(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in ";/[]\"{}()=+\\_-><@`,?!":
        out = out.replace(mark, "" if mark + " " in text or " " + mark in text else " ")
    out = re.sub(r"(?!<=\d)(\.)(?!\d)", "", out, count=32)
    words = [NUMBERS.get(w, w) for w in out.lower().split()]
    return " ".join(CONTRACTED.get(w, w) for w in words if w not in ("a", "an", "the"))


def vqa_soft(prediction: str, answers: list[str]) -> float:
    said, golds = vqa_normal(prediction), [vqa_normal(a) for a in answers]
    chances = []
    for i in range(len(golds)):
        others = golds[:i] + golds[i + 1:]
        chances.append(min(1.0, sum(g == said for g in others) / 3))
    return sum(chances) / len(chances)


def squad_words(text: str) -> list[str]:
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return [w for w in text.split() if w not in ("a", "an", "the")]


def f1(prediction: str, gold: str) -> float:
    a, b = squad_words(prediction), squad_words(gold)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if a or b else 0.0


def plain(text: str) -> str:
    text = text.strip()
    return (text[:-1].strip() if text.endswith(".") else text).lower()


def similarity(a: str, b: str) -> float:
    from rapidfuzz.distance import Levenshtein
    longer = max(len(a), len(b))
    return 1 - Levenshtein.distance(a, b) / longer if longer else 1.0


def some_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(HOSTILE)
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 9))]
    text = "".join(w + rng.choice([" ", " ", " ", ", ", ". ", "  ", "-", "? "]) for w in words)
    if kind < 0.3:
        text = "".join(rng.choice([c, c.upper(), c + rng.choice("()[]{}\"';:")]) for c in text)
    if kind > 0.97:
        text += rng.choice(HOSTILE) * rng.randint(2, 300)
    return text


def near(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(words))
        words[at:at + rng.randint(0, 1)] = [rng.choice(WORDS)]
    return " ".join(words) or "the"


def answers() -> dict:
    from rouge_score import rouge_scorer
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rng = random.Random(7)
    rows = []
    for _ in range(PAIRS):
        gold = some_text(rng)
        said = near(rng, gold) if rng.random() < 0.7 else some_text(rng)
        ten = [near(rng, said) if rng.random() < 0.5 else said for _ in range(10)]
        empty = not plain(said)
        edit = similarity(said.strip().lower(), gold.strip().lower())
        rows.append({
            "said": said, "gold": gold, "ten": ten,
            "exact": float(not empty and plain(said) == plain(gold)),
            "anls_soft": 0.0 if empty else edit,
            "anls": 0.0 if empty or edit < 0.5 else edit,
            "edit_similarity": 0.0 if empty else similarity(said.strip(), gold.strip()),
            "rouge_l": 0.0 if empty else rouge.score(gold, said)["rougeL"].fmeasure,
            "token_f1": 0.0 if empty else f1(said, gold),
            "vqa_normal": vqa_normal(said),
            "vqa_ten": vqa_soft(said, ten),
        })
    return {"rows": rows}


def caption_sets() -> list[tuple[str, list[str]]]:
    rng = random.Random(11)
    words = "a man woman dog is riding holding red blue horse bike on in the street field of and two near small".split()
    sets = []
    for i in range(CAPTIONS):
        base = [rng.choice(words) for _ in range(rng.randint(4, 14))]
        def varied() -> str:
            out = [w if rng.random() < 0.7 else rng.choice(words) for w in base if rng.random() < 0.9] or ["dog"]
            if rng.random() < 0.2:
                rng.shuffle(out)
            return " ".join(out)
        said = varied() if i % 9 else rng.choice(["", "zebra", "a", "a a a a", " ".join(base)])
        sets.append((said, [varied() for _ in range(1 + i % 5)]))
    return sets


def meteor(jar: Path, sets: list[tuple[str, list[str]]]) -> tuple[list[float], float]:
    process = subprocess.Popen(["java", "-jar", "-Xmx1G", str(jar), *METEOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    def ask(line: str) -> str:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()
    stats = [ask(" ||| ".join(["SCORE", *refs, said])) for said, refs in sets]
    process.stdin.write("EVAL ||| " + " ||| ".join(stats) + "\n")
    process.stdin.flush()
    rows = [float(process.stdout.readline()) for _ in sets]
    total = float(process.stdout.readline())
    process.stdin.close()
    process.wait()
    return rows, total


def captions() -> dict:
    import pycocoevalcap
    import sacrebleu
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    sets = caption_sets()
    bleu = BleuScorer(n=4)
    for said, refs in sets:
        bleu += (said, refs)
    corpus, rows = bleu.compute_score(option="closest")
    gts = {i: refs for i, (_, refs) in enumerate(sets)}
    res = {i: [said] for i, (said, _) in enumerate(sets)}
    _, cider = Cider().compute_score(gts, res)
    _, rouge = Rouge().compute_score(gts, res)
    jar = Path(pycocoevalcap.__path__[0]) / "meteor" / "meteor-1.5.jar"
    meteor_rows, meteor_all = meteor(jar, sets)
    most = max(len(refs) for _, refs in sets)
    streams = [[refs[k] if k < len(refs) else None for _, refs in sets] for k in range(most)]
    again = sacrebleu.corpus_bleu([said for said, _ in sets], streams, smooth_method="none", tokenize="none", force=True)
    return {"said": [s for s, _ in sets], "references": [r for _, r in sets], "bleu": list(corpus),
            "bleu_rows": [list(r) for r in zip(*rows)], "cider": list(map(float, cider)), "rouge": list(map(float, rouge)),
            "meteor_rows": meteor_rows, "meteor": meteor_all, "sacrebleu": again.score / 100}


def tokens() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mvn", "-q", "-B", MAVEN_COPY, f"-Dartifact={PTB_ARTIFACT}", f"-DoutputDirectory={folder}"], check=True)
        jar = next(Path(folder).glob("*.jar"))
        text = Path(folder) / "lines.txt"
        text.write_text("\n".join(LINES) + "\n", encoding="utf-8")
        out = subprocess.run(["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines",
                              "-lowerCase", str(text)], capture_output=True, text=True, check=True).stdout
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS
    cut = [[w for w in line.split() if w not in PUNCTUATIONS] for line in out.splitlines()]
    assert len(cut) == len(LINES)
    return {"lines": LINES, "tokens": cut}


def rounded(value):
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return value


def environment() -> Path:
    """The interpreter that has the packages; made again when requirements.txt changes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcit" / "golden-venv"
    python, stamp = cache / "bin" / "python", cache / "requirements.sha256"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", str(cache)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)], check=True)
        stamp.write_text(wanted)
    return python


def main() -> None:
    if os.environ.get("MCIT_GOLDEN_INSIDE") != "1":
        raise SystemExit(subprocess.run([str(environment()), __file__], env={**os.environ, "MCIT_GOLDEN_INSIDE": "1"}).returncode)
    golden = rounded({"answers": answers(), "captions": captions(), "ptb": tokens()})
    file = HERE / "scorers.json"
    file.write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
