"""The training loop and the compiled step."""
