"""Read and write pixels and sound: sources, times, readers, the writer, audio, masks."""
