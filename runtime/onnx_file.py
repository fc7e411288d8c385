"""Looks into an ONNX file without the onnx package: the little that must be known before an engine opens it."""

from __future__ import annotations

from collections.abc import Iterator

# Numbers of fields in onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_LOCATION, _EXTERNAL = 14, 1

Field = tuple[int, "int | memoryview"]


def weights_outside(data: memoryview) -> bool:
    """Whether a tensor of an ONNX model is kept in another file, which an engine would read without our knowing.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: it is no ONNX model.
    """
    try:
        graphs = [value for number, value in _fields(data) if number == _MODEL_GRAPH]
        while graphs:  # no recursion: a file may nest its graphs as deep as it likes
            for number, value in _fields(graphs.pop()):
                if number == _GRAPH_INITIALIZER and _outside(value):
                    return True
                if number != _GRAPH_NODE:
                    continue
                attributes = (field for key, field in _fields(value) if key == _NODE_ATTRIBUTE)
                for key, field in (pair for attribute in attributes for pair in _fields(attribute)):
                    if key in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS) and _outside(field):
                        return True
                    if key in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        graphs.append(field)
    except (IndexError, KeyError, TypeError):
        raise ValueError("no ONNX model") from None
    return False


def _outside(tensor: int | memoryview) -> bool:
    return any((number, value) == (_TENSOR_LOCATION, _EXTERNAL) for number, value in _fields(tensor))


def _fields(message: int | memoryview) -> Iterator[Field]:
    """A protobuf message's fields in order: their numbers, and whole numbers or the bytes of what has a length."""
    if isinstance(message, int):
        raise TypeError
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(message):
            raise IndexError
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
