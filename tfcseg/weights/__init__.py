"""Networks and their files: format, card, shipped models, published checkpoints."""
