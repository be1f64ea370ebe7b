"""Many small recurrent judges trained at once, with gradients written out by hand."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

FIRST_MOMENT, SECOND_MOMENT, EPSILON = 0.9, 0.999, 1e-8  # of Adam
SURPLUS = 1.5  # draws for each one wanted, before repeated ones are dropped
SMALL = 4  # times the draws wanted: populations up to here are shuffled whole


class Judges:
    r"""Gated recurrent networks with one output each, every one with a batch of its own.

    Each is ``torch.nn.GRU(inputs, hidden)`` followed by ``torch.nn.Linear(hidden, 1)``, begun from
    the same distribution and moved by ``torch.optim.Adam``:

    .. math::
        r = \sigma(W_r s), \quad z = \sigma(W_z s), \quad n = \tanh(U s + r \odot V s), \quad
        h' = n + z \odot (h - n), \quad s = (h, 1, x)

    All judges do a step together, features before the batch, and what the gates need in the
    backward pass is kept. That makes eight calls of torch for a time step and all judges, where
    autograd makes some sixty for each judge: 8 to 15 times less CPU time per judge.

    ``torch.nn.GRU`` adds two biases in its reset and update gates. They have one gradient, so Adam
    moves both alike; here their sum is one parameter that moves twice as far.

    References:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014
        (arXiv:1406.1078), with the reset gate after the product, as in cuDNN; Kingma and Ba,
        "Adam", ICLR 2015 (arXiv:1412.6980).

    Args:
        generators: One for each judge; it draws the first parameters.
        inputs: Channels of an input.
        hidden: Units of the state.
        length: Time steps.
        batch: Windows for each judge in a step.
        learning_rate: Adam's.
        dtype: Of all numbers.
    """

    def __init__(
        self,
        generators: list[np.random.Generator],
        inputs: int,
        hidden: int,
        length: int,
        batch: int,
        learning_rate: float = 1e-3,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        judges, state = len(generators), hidden + 1 + inputs
        self.hidden, self.batch = hidden, batch
        first = np.stack([first_parameters(rng, inputs, hidden) for rng in generators])
        self.parameters = torch.from_numpy(first).to(dtype)
        self.rate = learning_rate * torch.from_numpy(_moves(inputs, hidden)).to(dtype)
        self.gradient, self.mean, self.square = (torch.zeros_like(self.parameters) for _ in "gms")
        self.steps = 0
        self.states = torch.zeros(length + 1, judges, state, batch, dtype=dtype)
        self.states[:, :, hidden] = 1
        self.gates = torch.zeros(length, judges, 4 * hidden, batch, dtype=dtype)
        self.slopes = torch.zeros_like(self.gates)
        self.upstream = torch.zeros(judges, hidden, batch, dtype=dtype)
        self._forward, self._backward = self._views()

    @property
    def inputs(self) -> Float[Tensor, "time judge channel batch"]:
        """What is seen in each step; write it before `run`."""
        return self.states[:-1, :, self.hidden + 1 :]

    @property
    def head(self) -> Float[Tensor, "judge weight"]:
        """Weights of the output, its bias last."""
        return self.parameters[:, -self.hidden - 1 :]

    def run(self) -> Float[Tensor, "time judge state batch"]:
        """Return the state after each step, with a 1 under it."""
        weight = self._gate_weights(self.parameters)
        for (
            state,
            gates,
            sigmoids,
            candidate,
            reset,
            recurrent,
            before,
            update,
            after,
        ) in self._forward:
            torch.bmm(weight, state, out=gates)
            sigmoids.sigmoid_()
            candidate.addcmul_(reset, recurrent).tanh_()
            torch.lerp(candidate, before, update, out=after)
        return self.states[1:, :, : self.hidden + 1]

    def last_outputs(self) -> Float[Tensor, "judge batch"]:
        """Return the output after the last step."""
        return torch.bmm(self.head[:, None], self.run()[-1])[:, 0]

    def outputs(self) -> Float[Tensor, "time judge batch"]:
        """Return the output after each step."""
        return (self.head[:, :, None] * self.run()).sum(2)

    def learn_from_last(self, slope: Float[Tensor, "judge batch"]) -> None:
        """Do a step of Adam, given the loss's derivative by the last outputs of the same run."""
        after = self.states[-1, :, : self.hidden + 1]
        self._head_gradient().copy_(torch.bmm(after, slope[:, :, None])[:, :, 0])
        self._learn(self._through_head(slope[None])[0], None)

    def learn(self, slope: Float[Tensor, "time judge batch"]) -> None:
        """Do a step of Adam, given the loss's derivative by the outputs of the same run."""
        after = self.states[1:, :, : self.hidden + 1]
        self._head_gradient().copy_((after * slope[:, :, None]).sum((0, 3)))
        every = self._through_head(slope)
        self._learn(every[-1], every)

    def _through_head(self, slope: Tensor) -> Tensor:
        return self.head[None, :, :-1, None] * slope[:, :, None]

    def _learn(self, last: Tensor, every: Tensor | None) -> None:
        self._gate_weights(self.gradient).copy_(self._gate_gradient(last, every))
        self._adam()

    def _gate_gradient(self, last: Tensor, every: Tensor | None) -> Tensor:
        """Back through time; ``slopes`` become the derivatives by the gates before squashing."""
        self._local_slopes()
        weight = self._gate_weights(self.parameters)[:, :, : self.hidden]
        weight, upstream = weight.transpose(1, 2).contiguous(), self.upstream.copy_(last)
        for step, by_gate, slopes, update in self._backward:
            by_gate.mul_(upstream[:, None])
            upstream.mul_(update).baddbmm_(weight, slopes)
            if every is not None and step > 0:
                upstream.add_(every[step - 1])
        judges = len(self.parameters)
        states = self.states[:-1].flatten(0, 1).transpose(1, 2)
        return torch.bmm(self.slopes.flatten(0, 1), states).unflatten(0, (-1, judges)).sum(0)

    def _local_slopes(self) -> None:
        """Derivative of the state by each gate before squashing, for all steps at once."""
        reset, update, recurrent, candidate = self.gates.unflatten(2, (4, -1)).unbind(2)
        by_reset, by_update, by_recurrent, by_candidate = self.slopes.unflatten(2, (4, -1)).unbind(
            2
        )
        kept, before = 1 - update, self.states[:-1, :, : self.hidden]
        torch.mul(1 - candidate * candidate, kept, out=by_candidate)
        torch.mul(by_candidate, reset, out=by_recurrent)
        torch.mul(by_recurrent, (1 - reset).mul_(recurrent), out=by_reset)
        torch.mul((before - candidate).mul_(update), kept, out=by_update)

    def _adam(self) -> None:
        self.steps += 1
        gradient = self.gradient
        self.mean.lerp_(gradient, 1 - FIRST_MOMENT)
        self.square.mul_(SECOND_MOMENT).addcmul_(gradient, gradient, value=1 - SECOND_MOMENT)
        scale = (self.square / (1 - SECOND_MOMENT**self.steps)).sqrt_().add_(EPSILON)
        self.parameters.addcdiv_(
            self.mean * self.rate, scale, value=-1 / (1 - FIRST_MOMENT**self.steps)
        )

    def _gate_weights(self, flat: Tensor) -> Tensor:
        return flat[:, : -self.hidden - 1].unflatten(1, (4 * self.hidden, -1))

    def _head_gradient(self) -> Tensor:
        return self.gradient[:, -self.hidden - 1 :]

    def _views(self) -> tuple[list[tuple[Tensor, ...]], list[tuple[int, Tensor, Tensor, Tensor]]]:
        """The views of each time step, made once: slicing costs as much as computing."""
        forward, backward, hidden = [], [], self.hidden
        for step, (gates, slopes) in enumerate(zip(self.gates, self.slopes, strict=True)):
            reset, update, recurrent, candidate = gates.unflatten(1, (4, -1)).unbind(1)
            before, after = self.states[step, :, :hidden], self.states[step + 1, :, :hidden]
            sigmoids = gates[:, : 2 * hidden]
            state = self.states[step]
            forward.append(
                (state, gates, sigmoids, candidate, reset, recurrent, before, update, after)
            )
            backward.append((step, slopes.unflatten(1, (4, -1)), slopes, update))
        return forward, backward[::-1]


def first_parameters(rng: np.random.Generator, inputs: int, hidden: int) -> NDArray[np.float64]:
    r"""Draw the parameters of a judge as torch does, all from :math:`U(-1, 1) / \sqrt{H}`.

    They are drawn in torch's order: input weights, recurrent weights, input biases, recurrent
    biases (gates reset, update, candidate), output weights, output bias.
    """
    shapes = ((3, hidden, inputs), (3, hidden, hidden), (3, hidden), (3, hidden), (hidden + 1,))
    parts = [rng.uniform(-1, 1, shape) / np.sqrt(hidden) for shape in shapes]
    by_input, recurrent, input_bias, recurrent_bias, head = parts
    gates = np.zeros((4, hidden, hidden + 1 + inputs))
    gates[:3, :, :hidden] = recurrent
    gates[:2, :, hidden] = input_bias[:2] + recurrent_bias[:2]
    gates[2, :, hidden], gates[3, :, hidden] = recurrent_bias[2], input_bias[2]
    gates[[0, 1, 3], :, hidden + 1 :] = by_input
    return np.concatenate([gates.ravel(), head])


def _moves(inputs: int, hidden: int) -> NDArray[np.float64]:
    """How far each parameter moves in units of the learning rate: 0 for one that is not there."""
    gates = np.ones((4, hidden, hidden + 1 + inputs))
    gates[:2, :, hidden] = 2
    gates[2, :, hidden + 1 :] = 0
    gates[3, :, :hidden] = 0
    return np.concatenate([gates.ravel(), np.ones(hidden + 1)])


def gather(
    rows: Float[Tensor, "window value"], index: Int[Tensor, "judge batch"], length: int
) -> Float[Tensor, "time channel judge batch"]:
    """Take windows, each a row of all its values, and put features before the batch."""
    taken = rows.index_select(0, index.flatten()).t().contiguous()
    return taken.view(length, -1, *index.shape)


def distinct(
    rng: np.random.Generator, population: int, wanted: int, rows: int
) -> NDArray[np.int64]:
    """Draw ``rows`` times ``wanted`` different whole numbers below ``population``.

    From a large population numbers are drawn with repetition and repeated ones dropped, which is
    the same as not to repeat them. The rare row that has too few is shuffled from the start: which
    numbers it had does not matter to how many of them were different.
    """
    if population < SMALL * wanted:
        everyone = np.broadcast_to(np.arange(population), (rows, population))
        return rng.permuted(everyone, axis=1)[:, :wanted]
    drawn = rng.integers(population, size=(rows, int(SURPLUS * wanted)))
    order = np.argsort(drawn, axis=1, kind="stable")
    ordered = np.take_along_axis(drawn, order, axis=1)
    new = np.ones_like(drawn, dtype=bool)
    np.put_along_axis(new, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    new &= new.cumsum(axis=1) <= wanted
    short = new.sum(axis=1) < wanted
    chosen = np.empty((rows, wanted), dtype=np.int64)
    chosen[~short] = drawn[~short][new[~short]].reshape(-1, wanted)
    for row in np.flatnonzero(short):
        chosen[row] = rng.permutation(population)[:wanted]
    return chosen
