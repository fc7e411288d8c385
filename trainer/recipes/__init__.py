"""One recipe a file: a paper's training system, and what we found when training it in the .md beside it."""
