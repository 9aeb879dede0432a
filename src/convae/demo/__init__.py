"""The page to draw on, and the server behind it."""
