"""Straight lines through the values that are seen: where every prediction starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Values = Float[Tensor, "batch time channel"]
Seen = Bool[Tensor, "batch time channel"]
Times = Float[Tensor, "batch time"]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What is seen next to each value, itself included; all of shape ``(batch, time, channel)``.

    Args:
        last: The last value that is seen, or the next where there is none.
        following: The next value, or the last where there is none; 0 where nothing is seen.
        line: The interpolant between them.
        since: Time since the last; the window's whole length where there is none.
        until: Time until the next; the window's whole length where there is none.
        has_last: Whether anything is seen before, or here.
        has_following: Whether anything is seen after, or here.
    """

    last: Tensor
    following: Tensor
    line: Tensor
    since: Tensor
    until: Tensor
    has_last: Tensor
    has_following: Tensor


def interpolate(values: Values, seen: Seen, times: Times) -> tuple[Values, Values, Values]:
    r"""Interpolate each channel linearly in real time between its neighbours that are seen.

    .. math:: x_l + (x_r - x_l) \frac{t - t_l}{t_r - t_l}

    with :math:`l` the last and :math:`r` the next time that is seen; constant before the first
    and after the last; 0, the mean of a scaled channel, where nothing is seen.

    Args:
        values: Where not seen, anything, NaN included.
        seen: Which values count.
        times: When each row is, not decreasing.

    Returns:
        The interpolant; the time since the last value that was seen; the time until the next. Both
        are 0 at a value that is seen, and the window's whole length where there is no such value.

    Example:
        >>> line, since, until = interpolate(
        ...     torch.tensor([[[0.0], [9.0], [4.0]]]),
        ...     torch.tensor([[[True], [False], [True]]]),
        ...     torch.tensor([[0.0, 1.0, 4.0]]),
        ... )
        >>> line.flatten(), since.flatten(), until.flatten()
        (tensor([0., 1., 4.]), tensor([0., 1., 0.]), tensor([0., 3., 0.]))
    """
    found = neighbours(values, seen, times)
    return found.line, found.since, found.until


def neighbours(values: Values, seen: Seen, times: Times) -> Neighbours:
    """Find what is seen next to each value, by running maxima and minima of places: no loop."""
    time = values.shape[1]
    place = torch.arange(time, device=values.device)[None, :, None].expand(values.shape)
    before = torch.where(seen, place, -1).cummax(1).values
    after = torch.where(seen, place, time).flip(1).cummin(1).values.flip(1)
    has_before, has_after = before >= 0, after < time
    before, after = before.clamp(min=0), after.clamp(max=time - 1)

    known = torch.where(seen, values, 0)
    last, following = known.gather(1, before), known.gather(1, after)
    last, following = (  # the value there is 0 where nothing is seen at all
        torch.where(has_before, last, following),
        torch.where(has_after, following, last),
    )
    clock = times.to(values.dtype).unsqueeze(-1).expand(values.shape)
    since, until = clock - clock.gather(1, before), clock.gather(1, after) - clock
    span = (clock[:, -1:] - clock[:, :1]).expand(values.shape)
    gap = since + until
    share = since / torch.where(has_before & has_after & (gap > 0), gap, torch.inf)
    return Neighbours(
        last=last,
        following=following,
        line=torch.lerp(last, following, share),
        since=torch.where(has_before, since, span),
        until=torch.where(has_after, until, span),
        has_last=has_before,
        has_following=has_after,
    )
