"""A config's layers as a Keras model, and `.keras` files."""
