"""Check that everything tfcseg needs works on this machine, and say how to fix what does not."""
