"""Scores of generated data, each with the protocol it was measured by."""
