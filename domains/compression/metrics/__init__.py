"""Error of pictures, cost of files, and the codecs that one would use instead."""

from domains.compression.metrics import classical
from domains.compression.metrics.bd_rate import Saving, bd_rate
from domains.compression.metrics.quality import mean_squared_error, ms_ssim, psnr
from domains.compression.metrics.validation import validate

__all__ = ["Saving", "bd_rate", "classical", "mean_squared_error", "ms_ssim", "psnr", "validate"]
