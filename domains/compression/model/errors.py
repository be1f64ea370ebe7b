"""What can be wrong with a compressed file; whoever knows its name puts it in front."""

from __future__ import annotations

from core.runtime.errors import UserError


class CorruptBitstream(UserError):
    """A file, or a stream in it, that is damaged, cut off or of another kind.

    Args:
        section: Which part: ``"magic"``, ``"version"``, ``"header"``, ``"section table"``,
            ``"tile 0,1"``, ``"alpha"``, ``"profile"``, ``"latents"``, ``"trailer"``; ``"stream"``
            where a coder does not know whose it is.
        problem: What is wrong with it, and what to do.

    Example:
        >>> str(CorruptBitstream("trailer", "ends after 3 of 4 bytes"))
        'trailer: ends after 3 of 4 bytes'
    """

    def __init__(self, section: str, problem: str) -> None:
        super().__init__(section, problem)
        self.section, self.problem = section, problem

    def __str__(self) -> str:
        return f"{self.section}: {self.problem}"

    def within(self, section: str) -> CorruptBitstream:
        """Return the same problem of a section that is known by now."""
        return CorruptBitstream(section, self.problem)


class ModelMismatch(UserError):
    """A file that another model wrote.

    Args:
        wanted: Identity of the model that wrote it, 8 bytes.
        present: Identity of the model at hand.

    Example:
        >>> print(ModelMismatch(bytes(8), b"12345678"))
        model: written with 0000000000000000, here is 3132333435363738; give its own by --model
    """

    def __init__(self, wanted: bytes, present: bytes) -> None:
        super().__init__(wanted, present)
        self.wanted, self.present = wanted, present

    def __str__(self) -> str:
        return (
            f"model: written with {self.wanted.hex()}, here is {self.present.hex()}; "
            "give its own by --model"
        )


class TooLarge(UserError):
    """A picture of more pixels than allowed.

    Args:
        width: In pixels.
        height: In pixels.
        limit: Pixels that are allowed.

    Example:
        >>> print(TooLarge(30, 20, 100))
        picture: 30 x 20 is 600 pixels; allowed are 100; if you trust it: --max-pixels 600
    """

    def __init__(self, width: int, height: int, limit: int) -> None:
        super().__init__(width, height, limit)
        self.width, self.height, self.limit = width, height, limit

    def __str__(self) -> str:
        pixels = self.width * self.height
        return (
            f"picture: {self.width} x {self.height} is {pixels:,} pixels; allowed are "
            f"{self.limit:,}; if you trust it: --max-pixels {pixels}"
        )
