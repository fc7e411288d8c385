"""Scores that need PyTorch, each with the protocol it was measured by. The others are in runtime.metrics."""
