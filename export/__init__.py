"""Freezes trained runs into bundles: ONNX, a parity report, TensorRT engines. The command is `python -m export`."""
