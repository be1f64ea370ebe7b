"""How good reconstructions are, and what their intervals are worth."""
