"""The mathematics: read `evidence`, then `objectives`."""
