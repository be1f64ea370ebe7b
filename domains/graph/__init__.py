"""Link prediction and node embeddings with variational graph auto-encoders (Kipf & Welling)."""
