"""Time series that are generated, imputed, forecast and checked with Koopman VAEs (Naiman et al.)."""
