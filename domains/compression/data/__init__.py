"""Photographs → crops with their rates; pictures as files hold them."""

from domains.compression.data.batches import CropBatches, batches, examples
from domains.compression.data.errors import TooLarge
from domains.compression.data.manifest import Dataset, Entry, load, verify
from domains.compression.data.pictures import (
    MAX_PIXELS,
    image_of,
    read_picture,
    write_picture,
)
from domains.compression.data.records import LAST_RATE, Images, Picture
from domains.compression.data.sources import pictures_below
from domains.compression.data.store import photographs, prepare, test_pictures

__all__ = [
    "LAST_RATE",
    "MAX_PIXELS",
    "CropBatches",
    "Dataset",
    "Entry",
    "Images",
    "Picture",
    "TooLarge",
    "batches",
    "examples",
    "image_of",
    "load",
    "photographs",
    "pictures_below",
    "prepare",
    "read_picture",
    "test_pictures",
    "verify",
    "write_picture",
]
