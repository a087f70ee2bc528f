"""What a user holds: a network's kernels as functions of batches of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.batches import check_inputs, example_of
from widelimit.graph.show import table
from widelimit.kernel._cancelled import check_suspects
from widelimit.kernel._output import as_output
from widelimit.kernel._program import Program
from widelimit.limit.evaluate import Sampling
from widelimit.models import Description, describe
from widelimit.priors import Prior
from widelimit.trace import Graph, Leaf, read


class Kernels(NamedTuple):
    """Both kernels of one call."""

    nngp: Any
    ntk: Any


class _Cache:
    """One description with its programs, by shape of input; shared between copies.

    ``like`` is one that differs in its sampling only, and has read the network already.
    It is compared by identity, so that kernels can be arguments of jitted functions.
    """

    def __init__(
        self, description: Description, sampling: Sampling | None = None, like: Any = None
    ) -> None:
        self.description = description
        self.like = like
        self.sampling = sampling or Sampling()
        self.constant = tuple(_is_zero(p.std) for p in description.priors)
        self.programs: dict[Any, Program] = {}


@jax.tree_util.register_pytree_node_class
class Kernel:
    """The infinite-width kernels of a network.

    A kernel is a pytree whose leaves are the standard deviations of the random parameters, in the
    order of ``names``, so that ``jax.grad`` and ``jax.vmap`` go through it; inputs may be traced
    too.

    Make one with :func:`widelimit.kernel`.
    """

    def __init__(
        self, description: Description, stds: tuple[Any, ...] | None = None, cache: Any = None
    ) -> None:
        self.description = description
        self.stds = tuple(p.std for p in description.priors) if stds is None else stds
        self._cache = cache or _Cache(description)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """The standard deviations are the leaves; those of constants, being zero, are fixed."""
        children = tuple(
            s for s, zero in zip(self.stds, self._cache.constant, strict=True) if not zero
        )
        return children, self._cache

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> Kernel:
        """Rebuild from the leaves."""
        rest = iter(children)
        stds = tuple(0.0 if zero else next(rest) for zero in aux.constant)
        return cls(aux.description, stds, aux)

    def __repr__(self) -> str:
        arrays = ", ".join(
            f"{name}{tuple(a.shape)}"
            for name, a in zip(self.description.names[:6], self.description.arrays[:6])
        )
        more = ", …" if len(self.description.names) > 6 else ""
        return f"Kernel({arrays}{more})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return self.description.names

    @property
    def priors(self) -> dict[str, Prior]:
        """The prior of each parameter, by name."""
        return {
            name: Prior(p.mean, s, p.distribution)
            for name, p, s in zip(self.names, self.description.priors, self.stds)
        }

    def with_stds(self, stds: Mapping[str, Any]) -> Kernel:
        """The same network with other standard deviations for some of its random parameters.

        Parameters
        ----------
        stds
            Standard deviations, numbers or tracers, by the names of ``names``.

        Raises
        ------
        ValueError
            For a name that the network does not have, a negative or infinite number, or a
            parameter that is constant in this kernel, or would become so: describe the network
            anew for that.
        """
        unknown = sorted(set(stds) - set(self.names))
        if unknown:
            msg = f"the network has no parameters {', '.join(unknown)}; it has {self.names}"
            raise ValueError(msg)
        new = list(self.stds)
        for i, name in enumerate(self.names):
            if name not in stds:
                continue
            std = stds[name]
            known = not isinstance(std, jax.core.Tracer)
            if known and not (np.isfinite(std) and std >= 0):
                msg = f"the standard deviation of {name} is finite and at least 0, got {std}"
                raise ValueError(msg)
            if self._cache.constant[i] != (known and float(std) == 0):
                msg = f"{name} cannot change between a constant and a random parameter"
                raise ValueError(msg)
            new[i] = std
        return Kernel(self.description, tuple(new), self._cache)

    def with_sampling(self, draws: int = 1024, seed: int = 0) -> Kernel:
        """The same network, with other draws for what is integrated by sampling.

        These are a softmax of attention logits scaled by 1/sqrt(d), and functions of several
        dependent Gaussian fields, such as the states of GRU and LSTM; see :meth:`sampling_error`.

        Parameters
        ----------
        draws
            How many; the error falls off as draws^(-1/2).
        seed
            Which random numbers.
        """
        if draws < 2:
            msg = f"at least 2 draws are needed, got {draws}"
            raise ValueError(msg)
        source = self._cache.like or self._cache
        cache = _Cache(self.description, Sampling(draws, seed), like=source)
        return Kernel(self.description, self.stds, cache)

    def sampling_error(self, x1: PyTree, x2: PyTree | None = None, *, repeats: int = 8) -> Kernels:
        """The standard errors of both kernels from what is integrated by sampling.

        They are the spread of the kernels over ``repeats`` independent seeds; zero for networks
        that are integrated in closed form, by series or by quadrature, which is all of them but
        those with a softmax of attention logits scaled by 1/sqrt(d), or with functions of several
        dependent Gaussian fields.
        """
        if not self._program(check_inputs(x1, x2)[2]).sampled:
            return Kernels(*(jax.tree.map(jnp.zeros_like, k) for k in self.both(x1, x2)))
        sampling = self._cache.sampling
        runs = [
            self.with_sampling(sampling.draws, sampling.seed + 1 + i).both(x1, x2)
            for i in range(repeats)
        ]
        spread = lambda *k: jnp.std(jnp.stack(k), 0, ddof=1)
        return jax.tree.map(spread, *runs)

    # ----------------------------------------------------------------- readings

    def nngp(self, x1: PyTree, x2: PyTree | None = None) -> PyTree[Float[Array, "n1 n2 ..."]]:
        """The NNGP kernel E[f(x1) f(x2)] over random parameters, per output channel.

        Parameters
        ----------
        x1, x2
            Batches of inputs, shape (n, *shape), or pytrees of them; ``x2=None`` is ``x1``.

        Returns
        -------
        Array of shape (n1, n2, *positions, *positions), in the pytree of the network's output.
        Channel axes of the output disappear: channels are independent and identically
        distributed in the limit. Axes of size one disappear too.

        Raises
        ------
        WideLimitError
            If the network has no limit as written; it names the line of code.
        ValueError
            If shapes do not agree, or inputs are not finite.

        Notes
        -----
        Lee et al., Deep neural networks as Gaussian processes, 2018.
        """
        return self._kernels(x1, x2, ("nngp",))[0]

    def ntk(self, x1: PyTree, x2: PyTree | None = None) -> PyTree[Float[Array, "n1 n2 ..."]]:
        """The NTK Σ_θ ⟨∂f(x1)/∂θ, ∂f(x2)/∂θ⟩ over trainable parameters, per output channel.

        Arguments, shapes and errors are those of :meth:`nngp`.

        Notes
        -----
        Jacot, Gabriel, Hongler, Neural tangent kernel, 2018; for weights of standard
        parameterization Sohl-Dickstein et al., 2020.
        """
        return self._kernels(x1, x2, ("ntk",))[0]

    def both(self, x1: PyTree, x2: PyTree | None = None) -> Kernels:
        """NNGP and NTK, computed together; arguments as in :meth:`nngp`."""
        return Kernels(*self._kernels(x1, x2, ("nngp", "ntk")))

    def nngp_diagonal(self, x: PyTree) -> PyTree[Float[Array, "n ..."]]:
        """E[f(x)²] of each example with itself, shape (n, *positions)."""
        return self._diagonals(x, ("nngp",))[0]

    def ntk_diagonal(self, x: PyTree) -> PyTree[Float[Array, "n ..."]]:
        """The NTK of each example with itself, shape (n, *positions)."""
        return self._diagonals(x, ("ntk",))[0]

    def graph(self, x: PyTree) -> Graph:
        """The network as read for inputs shaped like the batch ``x``."""
        return self._program(example_of(jax.tree.map(jnp.asarray, x))).read

    def describe(self, x: PyTree) -> str:
        """A table of what is computed for inputs shaped like the batch ``x``, a line per node.

        Its columns are the node and what it is made of, positions, channels, the layout of its
        second moments, bytes for each pair of examples with both kernels, and the line of code.
        ``tied`` moments are those of each position with itself, ``full`` ones those of all pairs
        of positions. The last line bounds the memory that a pair takes. What vanishes in the limit
        is left out; :meth:`graph` has it still.
        """
        x, _, example = check_inputs(x)
        program, leaves = self._program(example), jax.tree.leaves(x)
        costs = program.costs(leaves, ("nngp", "ntk"))
        drawn = (
            f"\nSome moments are integrated with {self._cache.sampling.draws} draws; "
            "sampling_error(x) says how well."
        ) if program.sampled else ""
        return (
            f"{table(program.graph.outputs, self.names, costs.nodes)}\n\n"
            f"A pair of examples takes at most {_amount(costs.pair)}; "
            f"tiles hold up to {costs.tile} × {costs.tile} pairs.{drawn}"
        )

    # ----------------------------------------------------------------- inside

    def _program(self, example: Any) -> Program:
        leaves, structure = jax.tree.flatten(example)
        key = (structure, tuple((s.shape, str(s.dtype)) for s in leaves))
        if key not in self._cache.programs and self._cache.like is not None:
            read_once = Kernel(self.description, self.stds, self._cache.like)._program(example)
            self._cache.programs[key] = read_once.with_sampling(self._cache.sampling)
        elif key not in self._cache.programs:
            d = self.description
            infos = tuple(
                Leaf(name, tuple(a.shape), float(p.mean), zero, _number(p.std))
                for name, a, p, zero in zip(d.names, d.arrays, d.priors, self._cache.constant)
            )
            graph = read(d.apply, d.arrays, infos, example)
            check_suspects(graph, example, d.trainable)
            self._cache.programs[key] = Program(graph, d.trainable, self._cache.sampling)
        return self._cache.programs[key]

    def _kernels(self, x1: PyTree, x2: PyTree | None, kinds: tuple[str, ...]) -> tuple:
        x1, x2, example = check_inputs(x1, x2)
        program = self._program(example)
        second = None if x2 is None else jax.tree.leaves(x2)
        out = program.pairs(self.stds, jax.tree.leaves(x1), second, kinds)
        return as_output(program.graph, out)

    def _diagonals(self, x: PyTree, kinds: tuple[str, ...]) -> tuple:
        x, _, example = check_inputs(x, None)
        program = self._program(example)
        return as_output(
            program.graph, program.diagonal(self.stds, jax.tree.leaves(x), kinds)
        )


def kernel(model: Any, params: Any = None, *, prior: Any = None, trainable: Any = None) -> Kernel:
    """The infinite-width kernels of a network, read from its own code.

    Parameters
    ----------
    model
        A function ``f(params, x)`` of ONE example; an Equinox module; or a Flax NNX module.
        Modules are used as they are, and called as ``model(x)`` on one example.
    params
        For a function: a pytree of arrays or of ``jax.ShapeDtypeStruct``. Only shapes are used.
    prior
        What is random. For functions the default is independent N(0, 1) entries in every array;
        modules carry their initialisation. See :func:`widelimit.models.describe`.
    trainable
        Which arrays contribute to the NTK: a bool, a pytree prefix of bools, or a callable of
        (name, struct). Frozen arrays stay random in the prior.

    Returns
    -------
    Kernel

    Raises
    ------
    WideLimitError
        If a prior cannot be determined; on first use, if the network has no limit as written.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, widelimit as wl
    >>> def f(params, x):
    ...     w1, w2 = params
    ...     return w2 @ jax.nn.relu(w1 @ x / jnp.sqrt(3)) / jnp.sqrt(256)
    >>> shapes = [jax.ShapeDtypeStruct((256, 3), float), jax.ShapeDtypeStruct((1, 256), float)]
    >>> wl.kernel(f, shapes).nngp(jnp.eye(3)).shape
    (3, 3)
    """
    return Kernel(describe(model, params, prior=prior, trainable=trainable))


def _is_zero(std: Any) -> bool:
    if isinstance(std, jax.core.Tracer):
        return False
    return float(std) == 0.0


def _number(std: Any) -> float | None:
    return None if isinstance(std, jax.core.Tracer) else float(std)


def _amount(size: int) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
