"""Images from anywhere: found, verified, read, cached, split."""
