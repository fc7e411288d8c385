"""The words that say what is to run a bundle, for functions and commands alike."""

from __future__ import annotations

import re

from runtime.errors import InputError

DEVICES = "auto, cpu, openvino, cuda, cuda:N, tensorrt or tensorrt:N"
ORDER = ("tensorrt", "cuda", "openvino", "cpu")
"""What `auto` tries, best first: on a CPU, OpenVINO runs generators faster than ONNX Runtime in every precision."""
PRECISIONS = ("fp32", "fp16", "int8")
HINTS = ("latency", "throughput")


def parse_device(device: object) -> tuple[str, int]:
    """A device's kind ("auto" or one of ORDER) and number.

    Raises:
        InputError: it is no such word.
    """
    words = re.fullmatch(r"(auto|cpu|openvino)|(cuda|tensorrt)(?::(\d{1,3}))?", str(device))
    if not words:
        raise InputError(f"device is {device!r}, expected {DEVICES}")
    return words[1] or words[2], int(words[3] or 0)
