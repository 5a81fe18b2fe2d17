"""A tiny ONNX model, written as protocol buffers by hand: the mean of each channel, a matrix, and a sigmoid.

The numbers of the fields are those of onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FLOAT, INT64 = 1, 7  # TensorProto.DataType
INT, INTS = 2, 7  # AttributeProto.AttributeType


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def shape(name: str, sides: Sequence[int | str]) -> bytes:
    """A ValueInfoProto of floats; a side that is a text may have any length."""
    dimensions = b"".join(block(1, number(1, side) if isinstance(side, int) else block(2, side)) for side in sides)
    return block(1, name) + block(2, block(1, number(1, FLOAT) + block(2, dimensions)))


def node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(block(1, name) for name in inputs) + block(2, output) + block(4, kind) + attributes


def tagger(weights: Sequence[Sequence[float]], sides: Sequence[int | str] = ("batch", 32, 32, 3), scale: float = 1.0) -> bytes:
    """A model of images `[B, side, side, 3]`: `sigmoid(mean @ weights) * scale`, one number for each column of `weights`."""
    columns = len(weights[0])
    values = struct.pack(f"<{3 * columns}f", *(value for row in weights for value in row))
    matrix = number(1, 3) + number(1, columns) + number(2, FLOAT) + block(8, "w") + block(9, values)
    factor = number(2, FLOAT) + block(8, "s") + block(9, struct.pack("<f", scale))
    axes = block(5, block(1, "axes") + number(8, 1) + number(8, 2) + number(20, INTS))
    dropped = block(5, block(1, "keepdims") + number(3, 0) + number(20, INT))
    nodes = [
        node("ReduceMean", ["input"], "mean", axes + dropped),
        node("MatMul", ["mean", "w"], "sum"),
        node("Sigmoid", ["sum"], "share"),
        node("Mul", ["share", "s"], "output"),
    ]
    graph = b"".join(block(1, one) for one in nodes) + block(2, "tagger") + block(5, matrix) + block(5, factor)
    graph += block(11, shape("input", sides)) + block(12, shape("output", ["batch", columns]))
    return number(1, 7) + block(7, graph) + block(8, number(2, 13))
