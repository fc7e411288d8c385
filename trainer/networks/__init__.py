"""The networks of the recipes, one family a file."""
