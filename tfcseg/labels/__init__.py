"""Label sets, their palettes, and maps between them."""
