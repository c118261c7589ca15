"""Labels as pictures: overlay, legend, panels."""
