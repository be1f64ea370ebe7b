"""Physics, coil maps, classical reconstructions and unrolled networks."""
