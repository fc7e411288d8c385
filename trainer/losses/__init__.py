"""The losses of the recipes, one idea a file."""
