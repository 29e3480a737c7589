#!/usr/bin/env python3
"""F1 with real clients: `mcit node` processes end with the bits of `mcit federate`; and what leaves them is what was declared.

    node_test.py MCIT LIBMCIT_FED      # runs again by itself in the environment with Flower, whose messages it reads
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

from certificates import Proxy
from superlink import PATIENCE, ROOT, World, expect, flower_env

CLIENTS, ROUNDS = ("client-01", "client-02", "client-03"), 6
SETTINGS = """suite = "small.toml"
data = "data"
threads = 1
[strategy]
name = "sequential"
rank = 2
[train]
steps = 2
batch = 4
schedule = "constant"
[partition]
kind = "dirichlet"
alpha = 1.0
clients = 3
[stream]
rounds_per_stage = 2
[federation]
run = "hospital"
quorum = 3
"""
SUITE = "".join(
    f'[[tasks]]\nname = "{task}"\ntrain = "{task}/train.json"\ntest = "{task}/test.json"\nmax_new_tokens = 4\n'
    for task in ("vqa", "geo", "count"))


class Capture:
    """Everything that nodes post, and the objects in it."""

    def __init__(self) -> None:
        self.lock, self.calls, self.bytes, self.headers, self.objects, self.keys = threading.Lock(), set(), 0, set(), {}, set()
        self.replies = 0

    def __call__(self, path: str, headers: dict, body: bytes, _: bytes) -> None:
        from flwr.proto import fleet_pb2, message_pb2

        with self.lock:
            call = path.removeprefix("/v1/fleet/")
            self.calls.add(call)
            self.headers |= {name.lower() for name in headers}
            self.bytes += len(body)
            if call == "push-object":
                push = message_pb2.PushObjectRequest.FromString(body)
                self.objects[push.object_id] = push.object_content
                expect(push.ByteSize(), len(body), "a push without fields that flwr does not know")
            if call == "push-messages":
                push = fleet_pb2.PushMessagesRequest.FromString(body)
                self.replies += len(push.messages_list)
                for message in push.messages_list:
                    assert not message.error.reason, message.error.reason


def parsed(content: bytes) -> tuple[str, list[str], bytes]:
    head, body = content.split(b"\0", 1)
    kind, children, _ = head.decode().split(" ")
    return kind, [child for child in children.split(",") if child], body


def check_records(objects: dict[str, bytes]) -> list[bytes]:
    """Objects of known kinds, their small ones with known keys. @return the blobs"""
    from flwr.proto import recorddict_pb2

    blobs = []
    for content in objects.values():
        kind, children, body = parsed(content)
        if kind == "ConfigRecord":
            record = recorddict_pb2.ConfigRecord.FromString(body)
            expect({item.key for item in record.items}, {"client", "examples", "rounds"}, "what a node says of itself")
        elif kind == "Array":
            said = json.loads(body)
            expect(sorted(said), ["arraychunk_ids", "dtype", "shape", "stype"], "an Array")
            blobs.append(b"".join(parsed(objects[children[index]])[2] for index in said["arraychunk_ids"]))
        elif kind == "RecordDict":
            assert set(json.loads(body)) in ({"who"}, {"who", "update"}), body
        elif kind == "ArrayRecord":
            expect(list(json.loads(body)), ["blob"], "an ArrayRecord")
        else:
            assert kind in ("Message", "ArrayChunk"), kind
    return blobs


def header_of(blob: bytes) -> tuple[dict, dict, bytes]:
    """Tensors, metadata and data of a safetensors blob."""
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + size])
    return header, header.pop("__metadata__", {}), blob[8 + size:]


def check_updates(blobs: list[bytes], model: bytes, federation: dict) -> int:
    """The model's tensors in the model's shapes, known metadata, and not a byte besides. @return bytes of tensors"""
    declared, _, _ = header_of(model)
    total = 0
    for blob in blobs:
        tensors, metadata, data = header_of(blob)
        expect({name: (entry["dtype"], entry["shape"]) for name, entry in tensors.items()},
               {name: (entry["dtype"], entry["shape"]) for name, entry in declared.items()}, "the tensors of an update")
        expect(sorted(metadata), ["base", "client", "encoding", "examples", "round", "run", "schema", "strategy", "strategy_version",
                                  "task"], "the metadata of an update")
        assert metadata["client"] in CLIENTS and metadata["task"] in ("vqa", "geo", "count") and metadata["run"] == "hospital", metadata
        assert int(metadata["examples"]) <= 24 and 1 <= int(metadata["round"]) <= ROUNDS, metadata
        expect(len(data), sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in tensors.values()), "bytes of tensors")
        total += len(data)
    expect(len(blobs), federation["updates"], "updates")
    return total


def pixels_of(png: bytes) -> bytes:
    """A row in the middle of an 8-bit RGB picture without interlace (PNG specification, filters 0 .. 4)."""
    width, height = struct.unpack(">II", png[16:24])
    packed, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at:at + 4])
        packed += png[at + 8:at + 8 + length] if png[at + 4:at + 8] == b"IDAT" else b""
        at += 12 + length
    raw, stride, above = zlib.decompress(packed), 3 * width, bytearray(3 * width)
    for y in range(height // 2 + 1):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            a, b, c = (row[i - 3] if i > 2 else 0), above[i], (above[i - 3] if i > 2 else 0)
            paeth = min((a, b, c), key=lambda x, p=a + b - c: abs(p - x))
            row[i] = (row[i] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        above = row
    return bytes(above)


def secrets_of(mcit_share: Path, data: Path) -> dict[bytes, str]:
    """What must not be found: texts of rows, their tokens as numbers, picture files, pixels as bytes and as floats."""
    rows = [row for file in sorted(data.glob("*/train.json")) for row in json.loads(file.read_text())]
    vocabulary = json.loads((mcit_share / "tokenizer.json").read_text())["model"]["vocab"]
    out: dict[bytes, str] = {}
    for row in rows:
        for turn in row["conversations"]:
            text = turn["value"].replace("<image>", "").strip()
            if len(text) >= 12:
                out[text.encode()] = f"text {text!r}"
            ids = [vocabulary[f"\u0120{word}"] for word in text.split() if f"\u0120{word}" in vocabulary]
            if len(ids) >= 4:
                out |= {struct.pack(f"<{len(ids)}{kind}", *ids): f"tokens of {text!r}" for kind in "hiq"}
        picture = (data / row["image"]).read_bytes()
        out[picture[-64:-16]] = f"the file {row['image']}"
        line = pixels_of(picture)
        if len(set(line)) >= 6:
            out[line] = f"pixels of {row['image']}"
            for scale in (1.0, 1 / 255):
                out[struct.pack(f"<{len(line)}f", *(value * scale for value in line))] = f"pixels of {row['image']} as floats"
    return out


def main(mcit: str, library: str) -> None:
    with World(library) as world:
        folder = world.folder
        (folder / "small.toml").write_text(SUITE)
        (folder / "fed.toml").write_text(SETTINGS)
        config = str(folder / "fed.toml")

        def command(*arguments: str) -> None:
            done = subprocess.run([mcit, *arguments], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"mcit {' '.join(arguments)}: {done.stdout}{done.stderr}"

        command("make-data", "mini", "--out", str(folder / "data"), "--train", "24", "--test", "6", "--tasks", "vqa,geo,count")
        command("federate", config, "--out", str(folder / "embedded"), "--set", "eval.base=false")
        command("node", "init", config, "--out", str(folder), "--deadline", str(120 * PATIENCE))
        world.superlink()
        capture = Capture()
        proxy = Proxy(world.port, capture)
        run = world.run(nodes=len(CLIENTS))
        nodes = []
        for client in CLIENTS:
            command("node", "keygen", f"{folder}/{client}.key")
            nodes.append(world.start(client, [mcit, "node", "run", config, "--client", client, "--key", f"{folder}/{client}.key",
                                              "--url", f"http://127.0.0.1:{proxy.port}", "--state", f"{folder}/{client}"]))
        records = [world.committed(number, 180) for number in range(1, ROUNDS + 1)]
        for record in records:
            theirs = json.loads((folder / "embedded/ledger" / f"round-{record['round']:06}.json").read_text())
            expect(record["after"], theirs["after"], f"F1: the state after round {record['round']}")
            expect(record["used"], theirs["used"], f"F1: the updates of round {record['round']}")
        world.ends(run, "finished:completed")
        for node in nodes:
            node.terminate()
        for client, node in zip(CLIENTS, nodes):
            expect(node.wait(60), 0, f"exit code of {client}")

        allowed = {"register-node", "activate-node", "send-node-heartbeat", "pull-messages", "pull-object", "confirm-message-received",
                   "push-messages", "push-object", "deactivate-node"}
        assert capture.calls <= allowed, capture.calls - allowed
        assert capture.headers <= {"host", "content-type", "accept", "content-length", "flwr-public-key", "flwr-timestamp",
                                   "flwr-signature"}, capture.headers
        updates = sum(len(record["used"]) for record in records)
        blobs = check_records(capture.objects)
        tensors = check_updates(blobs, world.model.read_bytes(), {"updates": updates})
        besides = capture.bytes - tensors
        print(f"{updates} updates, {tensors} bytes of tensors, {besides} bytes besides")
        secrets = secrets_of(ROOT / "benchmarks/mcit/mini/base", folder / "data")
        kinds = {what.split(" ")[0] for what in secrets.values()}
        expect(kinds, {"text", "tokens", "the", "pixels"}, "kinds of secrets")
        seen = b"".join(capture.objects.values())
        for secret, what in secrets.items():
            assert secret not in seen, f"it left its client: {what}"


if __name__ == "__main__":
    interpreter = flower_env.find_flower()
    if interpreter is None:
        print("skipped: Flower is not installed; ./dev setup --tests does that")
        raise SystemExit(4)
    if Path(sys.prefix) != interpreter.parent.parent:
        os.execv(interpreter, [str(interpreter), *sys.argv])
    main(*sys.argv[1:3])
    print("passed")
