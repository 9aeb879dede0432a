"""What a layer is, in arithmetic; no TensorFlow."""
