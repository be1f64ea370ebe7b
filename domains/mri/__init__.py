"""Accelerated MRI by RecurrentVarNet, with calibrated uncertainty (Yiasemis et al.)."""
