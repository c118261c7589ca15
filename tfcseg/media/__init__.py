"""Read and write images, videos, sound and masks."""
