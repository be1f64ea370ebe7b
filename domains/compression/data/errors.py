"""What can be wrong with a picture before any of its pixels is decoded."""

from __future__ import annotations

from core.runtime.errors import UserError


class TooLarge(UserError):
    """A picture of more pixels than allowed.

    Args:
        width: In pixels.
        height: In pixels.
        limit: Pixels that are allowed.
        place: What the message calls it, a path where there is one.

    Example:
        >>> print(TooLarge(30, 20, 100))
        picture: 30 x 20 is 600 pixels; allowed are 100; if you trust it: --max-pixels 600
    """

    def __init__(self, width: int, height: int, limit: int, place: str = "picture") -> None:
        super().__init__(width, height, limit, place)
        self.width, self.height, self.limit, self.place = width, height, limit, place

    def __str__(self) -> str:
        pixels = self.width * self.height
        return (
            f"{self.place}: {self.width} x {self.height} is {pixels:,} pixels; allowed are "
            f"{self.limit:,}; if you trust it: --max-pixels {pixels}"
        )
