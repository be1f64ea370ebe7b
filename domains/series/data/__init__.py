"""Files → series → a validated, split, scaled and fingerprinted dataset → windows for a model."""

from domains.series.data.records import (
    Clock,
    Dataset,
    Panel,
    Scaler,
    Series,
    Windows,
)
