"""Labels as pictures: overlay, legend, strips."""
