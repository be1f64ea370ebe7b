"""Volumes and k-space → scans with known sampling; masks, coils, simulation, file formats."""
