"""Images compressed by variable-rate VAEs, decoded bit-exactly (Ballé, Duan et al.)."""
