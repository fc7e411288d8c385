"""The commands of `python -m runtime`, one a file: `configure` adds its options, `run` does it and returns its JSON."""
