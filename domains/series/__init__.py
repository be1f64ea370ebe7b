"""Time series generated, imputed, forecast and checked with Koopman VAEs (Naiman et al.)."""
