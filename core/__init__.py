"""What every domain shares: the variational mathematics and the life of a run."""
