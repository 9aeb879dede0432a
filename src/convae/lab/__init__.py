"""The transposed convolution laboratory: arithmetic that needs NumPy at most."""
