"""The network: tensors in, tensors out; no paths, no OpenCV, no printing."""
