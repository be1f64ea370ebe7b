"""Accelerated MRI: RecurrentVarNet with calibrated uncertainty, beside CG-SENSE, wavelets and TV (Yiasemis et al. 2022)."""
