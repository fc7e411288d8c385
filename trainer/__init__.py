"""Trains GANs in PyTorch. The command is `python -m trainer RECIPE`; a recipe is a paper."""
