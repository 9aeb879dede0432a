"""What a run runs on: one device, several, or several machines."""
