"""Compare modes of a network with each other and with another program: speed, stability, scores, pictures."""
