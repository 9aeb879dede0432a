"""convae: train, understand and use convolutional autoencoders with Keras and TensorFlow.

Importing the package imports neither TensorFlow nor Keras.
"""

__version__ = "0.1.0"
