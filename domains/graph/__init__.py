"""Link prediction and node embeddings with variational graph auto-encoders (Kipf & Welling, 2016)."""
