"""A trained model made fast and exact, with where it is from; and the proof of it in words."""

from __future__ import annotations

