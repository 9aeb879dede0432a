"""One device, several devices or several machines: how TensorFlow runs a training."""
