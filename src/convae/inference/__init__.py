"""A trained model in use: encode, decode, predict, export, scikit-learn."""
