#!/usr/bin/env python3
"""Objects as flwr itself makes them, for tests/unit/fed/flower_test.cpp.

    python tests/golden/flower_objects.py > tests/golden/flower_objects.json      # in an environment with flwr==1.41.0

Each case has the content that the test builds by itself, and every object's id; small ones with their bytes.
"""

import json

import flwr
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

CHUNK = 5 << 20


def objects(root):
    out = {}
    for name, thing in get_all_nested_objects(root).items():
        data = thing.deflate()
        out[name] = data.hex() if len(data) < 2000 else None
    return {"id": root.object_id, "objects": out}


def blob(size):
    return bytes((i * i + 7 * i) % 251 for i in range(251)) * (size // 251) + bytes(size % 251)


def content(arrays=(), configs=()):
    records = {name: ConfigRecord(dict(items)) for name, items in configs}
    for name, items in arrays:
        records[name] = ArrayRecord({key: Array("uint8", (len(data),), "safetensors", data) for key, data in items})
    return RecordDict(records)


def message(error=None, content=None, tasks=(None, None)):
    metadata = Metadata(run_id=2**63 + 5, message_id="", src_node_id=2**64 - 3, dst_node_id=1,
                        reply_to_message_id="ab" * 32, group_id="7", created_at=1782000000.125, ttl=1234.5,
                        message_type="train", src_task_id=tasks[0], dst_task_id=tasks[1])
    return Message(metadata=metadata, error=error, content=content)


SMALL = content(arrays=[("model", [("blob", b"\x00\x01\xff tiny")])],
                configs=[("who", [("client", "ann \u00e9\u4e2d \"q\"\n"), ("examples", 12345678901), ("loss", -0.5), ("ready", True)])])
CASES = {
    "small": SMALL,
    "empty array": content(arrays=[("model", [("blob", b"")])]),
    "no records": content(),
    "the same array twice": content(arrays=[("model", [("a", b"same"), ("b", b"same")])]),
    "chunks": content(arrays=[("model", [("blob", blob(2 * CHUNK + 3))])]),
    "equal chunks": content(arrays=[("model", [("blob", bytes(3 * CHUNK) + b"end")])]),
    "reply": message(content=SMALL, tasks=(11, 12)),
    "error": message(error=Error(0, "no rows")),
}

if __name__ == "__main__":
    print(json.dumps({"flwr": flwr.__version__, "cases": {name: objects(root) for name, root in CASES.items()}}, indent=1))
