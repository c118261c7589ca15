"""A user's own videos teach TFC to a frozen network: how much look-alikes are worth, and what repairs points."""
