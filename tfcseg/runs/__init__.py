"""One video from its first frame to its report; can be resumed."""
