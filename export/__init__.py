"""Freezes trained runs into bundles: ONNX in several precisions, parity reports, TensorRT engines.

The command is `python -m export`.
"""
