"""Error of pictures, cost of files, and the codecs that one would use instead."""

from domains.compression.metrics import classical, rd
from domains.compression.metrics.bd_rate import Saving, bd_rate
from domains.compression.metrics.curves import Curve, Point, curves_of, saving
from domains.compression.metrics.evaluation import metrics
from domains.compression.metrics.quality import mean_squared_error, ms_ssim, psnr
from domains.compression.metrics.validation import validate

__all__ = [
    "Curve",
    "Point",
    "Saving",
    "bd_rate",
    "classical",
    "curves_of",
    "mean_squared_error",
    "metrics",
    "ms_ssim",
    "psnr",
    "rd",
    "saving",
    "validate",
]
