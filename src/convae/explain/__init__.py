"""The transposed-convolution laboratory: the operation, worked examples, effects, figures."""
