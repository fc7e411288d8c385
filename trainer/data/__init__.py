"""Training data: recorded or simulated, checked whole before anything is trained on it."""
