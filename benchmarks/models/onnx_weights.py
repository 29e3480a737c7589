"""Weights of a DINOv2 out of an ONNX file, with the standard library alone.

An ONNX file is a protobuf message. Of ModelProto, field 7 is the graph; of GraphProto, 1 are nodes and 5 initialisers;
of NodeProto, 1 are inputs and 3 is the name; of TensorProto, 1 are dimensions, 2 the type (1: float32), 8 the name, 9
the bytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from pathlib import Path

Weights = tuple[list[int], array]
Tensor = tuple[str, list[int], bytes]


def read_dinov2(file: Path, side: int) -> dict[str, Tensor]:
    """Tensors with the names of transformers' Dinov2Model, positions for side x side patches."""
    inputs, weights = read_graph(file)
    tower = {name.removeprefix("backbone."): value for name, value in weights.items() if name.startswith("backbone.")}
    for node, names in inputs.items():
        # The exporter folded the transposition of a linear's weight into an initialiser that only the node names.
        if node.startswith("/backbone/encoder/") and node.endswith("/MatMul") and names[1] in weights:
            linear = node.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tower[f"{linear}.weight"] = transposed(weights[names[1]])
    class_position = weights[inputs["/backbone/embeddings/Concat_6"][0]][1]
    grid = weights[inputs["/backbone/embeddings/Reshape_1"][0]]
    width = len(class_position)
    positions = class_position + resampled(grid[1], width, math.isqrt(grid[0][1]), side)
    tower["embeddings.position_embeddings"] = [1, 1 + side * side, width], positions
    tower["embeddings.mask_token"] = [1, width], array("f", bytes(4 * width))
    return {name: ("F32", shape, values.tobytes()) for name, (shape, values) in tower.items()}


def read_graph(file: Path) -> tuple[dict[str, list[str]], dict[str, Weights]]:
    """Inputs of every node, and the float32 initialisers."""
    inputs: dict[str, list[str]] = {}
    weights: dict[str, Weights] = {}
    data = memoryview(file.read_bytes())
    for number, graph in fields(data):
        if number != 7:
            continue
        for kind, value in fields(graph):
            if kind == 1:
                node = list(fields(value))
                name = "".join(text(part) for field, part in node if field == 3)
                inputs[name] = [text(part) for field, part in node if field == 1]
            elif kind == 5:
                tensor = list(fields(value))
                if (2, 1) in tensor:
                    name = "".join(text(part) for field, part in tensor if field == 8)
                    weights[name] = dimensions(tensor), floats(tensor)
    return inputs, weights


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = varint(data, at)
        else:
            length = {1: 8, 5: 4}[kind]
        yield key >> 3, data[at : at + length]
        at += length


def varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def text(value: memoryview) -> str:
    return bytes(value).decode()


def dimensions(tensor: list) -> list[int]:
    sizes: list[int] = []
    for field, value in tensor:
        if field == 1 and isinstance(value, int):
            sizes.append(value)
        elif field == 1:  # packed
            at = 0
            while at < len(value):
                size, at = varint(value, at)
                sizes.append(size)
    return sizes


def floats(tensor: list) -> array:
    values = array("f")
    for field, value in tensor:
        if field == 9:
            values.frombytes(value)
    return values


def transposed(matrix: Weights) -> Weights:
    (rows, columns), values = matrix
    out = array("f")
    for column in range(columns):
        out.extend(values[column::columns])
    return [columns, rows], out


def resampled(grid: array, width: int, old: int, new: int) -> array:
    """[old * old, width] -> [new * new, width], bicubic (a = -0.75), pixel centres, edges repeated."""
    taps = [cubic_taps((i + 0.5) * old / new - 0.5, old) for i in range(new)]
    out = array("f")
    for row in taps:
        for column in taps:
            sources = [(wr * wc, grid[(r * old + c) * width : (r * old + c + 1) * width])
                       for r, wr in row for c, wc in column]
            out.extend(sum(weight * values[k] for weight, values in sources) for k in range(width))
    return out


def cubic_taps(centre: float, size: int) -> list[tuple[int, float]]:
    a, first = -0.75, math.floor(centre)
    taps = []
    for i in range(first - 1, first + 3):
        x = abs(centre - i)
        weight = (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        taps.append((min(max(i, 0), size - 1), weight))
    return taps
