#!/usr/bin/env python3
"""engine/fed/flower/fleet.proto and constants beside it against the installed flwr: numbers, types, labels, paths, headers, codes.

    drift_test.py fleet.descriptors node.cpp      # runs again by itself in the environment with Flower
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import flower_env  # noqa: E402

SERVICES = ("fleet", "message", "heartbeat", "node", "error", "recorddict")


def enter() -> None:
    python = flower_env.find_flower()
    if python is None:
        print("skipped: Flower is not installed; ./dev setup --tests does that")
        raise SystemExit(4)
    if Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])


def check_messages(descriptors: Path) -> list[str]:
    from google.protobuf import descriptor_pb2, descriptor_pool

    for name in SERVICES:
        __import__(f"flwr.proto.{name}_pb2")
    pool, faults, seen = descriptor_pool.Default(), [], 0

    def compare(message, prefix: str) -> None:
        nonlocal seen
        full = f"{prefix}.{message.name}"
        try:
            theirs = descriptor_pb2.DescriptorProto()
            pool.FindMessageTypeByName(full).CopyToProto(theirs)
        except KeyError:
            return faults.append(f"{full}: flwr has no such message")
        known = {field.number: field for field in theirs.field}
        for field in message.field:
            seen += 1
            other = known.get(field.number)
            mine = (field.name, field.type, field.label, field.type_name, field.proto3_optional)
            if other is None:
                faults.append(f"{full}.{field.name}: flwr has no field {field.number}")
            elif mine != (got := (other.name, other.type, other.label, other.type_name, other.proto3_optional)):
                faults.append(f"{full}: field {field.number} is {mine} here and {got} in flwr")
        for nested in message.nested_type:
            compare(nested, full)

    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    for file in files.file:
        for message in file.message_type:
            compare(message, file.package)
    if seen < 50:
        faults.append(f"only {seen} fields were compared: is {descriptors} whole?")
    return faults


def check_constants(source: str) -> list[str]:
    import inspect

    import flwr.common.constant as common
    import flwr.supercore.constant as core
    from flwr.supercore.error import ApiErrorCode
    from flwr.supernode.fleet_http_client import FleetHttpClient

    mine = {name: int(value) for name, value in re.findall(r"\b(k\w+) = (\d+)[,;]", source)}
    client = inspect.getsource(FleetHttpClient)
    expected = {
        "chunk": (common.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, 5 << 20),
        "head divider": (core.HEAD_VALUE_DIVIDER, " "),
        "body divider": (core.HEAD_BODY_DIVIDER, b"\0"),
        "shortest heartbeat": (common.HEARTBEAT_MIN_INTERVAL, 10),
        "longest heartbeat": (common.HEARTBEAT_MAX_INTERVAL, 1800),
        "public key header": (core.FLEET_HTTP_PUBLIC_KEY_HEADER, "flwr-public-key"),
        "signature header": (core.FLEET_HTTP_SIGNATURE_HEADER, "flwr-signature"),
        "timestamp header": (common.TIMESTAMP_HEADER, "flwr-timestamp"),
        "key in use": (int(ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE), mine.get("kKeyInUse")),
        "run not allowed": (int(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED), mine.get("kRunNotAllowed")),
    }
    faults = [f"{what}: flwr has {theirs!r}, the node {ours!r}" for what, (theirs, ours) in expected.items() if theirs != ours]
    calls = re.findall(r'"([a-z]+-[a-z-]+)"', source)
    if len(set(calls)) != 10:
        faults.append(f"ten calls were expected in the source of the node, not {sorted(set(calls))}")
    return faults + [f"{call}: flwr has no such path" for call in calls if f'"/v1/fleet/{call}"' not in client]


def main() -> int:
    enter()
    import flwr

    faults = check_messages(Path(sys.argv[1])) + check_constants(Path(sys.argv[2]).read_text())
    for fault in faults:
        print(fault)
    print(f"flwr {flwr.__version__}: {len(faults)} differences")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
