"""From frames to labels."""
