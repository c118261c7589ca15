"""Pixels and sound in and out: sources, times, readers, the writer, audio, masks."""
