"""Networks and their files: the format, the card, the models that come along, foreign checkpoints."""
