"""Judge one network: refused, or in agreement with Monte Carlo, or wrong."""

from __future__ import annotations

import math
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from program import Program

import widelimit as wl
from oracle.numeric import run

BIAS = 3.0
"""Allowed finite-width deviation, in units of 1/width relative to the size of the kernel."""


EXPANSION = 30.0
"""What is left after extrapolation is this over width, times what is allowed before."""


class NotComparedError(Exception):
    """The output's channels are arranged in a way the sampler does not follow."""


@dataclass
class Verdict:
    """What became of one network."""

    seed: int
    kind: str  # read, refused, not compared, crash, silent
    features: tuple[str, ...] = ()
    error: str = ""
    detail: str = ""
    z: float = 0.0
    stage: int = 0
    primitives: set[str] = field(default_factory=set)


def is_shape(s: Any) -> bool:
    """Whether this is the shape of an array."""
    return isinstance(s, tuple) and all(isinstance(k, int) for k in s)


NEAR, LESS_NEAR = 1e-4, 0.1
"""How far the last two examples are apart where they nearly agree."""

JUMPS = {"sign", "floor", "round", "ceil", "gt", "lt", "ge", "le", "eq"}
"""Behind these, the last two hardly ever differ in networks of any width that can be drawn.

One of n signs differs with probability p, of the order of the distance; every jump behind it sees
a distance of sqrt(p) in the limit, but of E sqrt(k / n) with k mostly 0 in a network.
"""


def inputs(program: Program, rng: np.random.Generator, near: float = NEAR) -> tuple[Any, bool]:
    """Three examples, and whether the last two nearly agree."""
    close = rng.random() < 0.3

    def one(shape: tuple[int, ...]) -> Any:
        x = rng.normal(size=(3, *shape))
        if close:
            x[2] = x[1] + near * rng.normal(size=shape)
        return jnp.asarray(x)

    return jax.tree.map(one, program.input_shapes, is_leaf=is_shape), close


def primitives_of(jaxpr: Any, into: Counter[str]) -> None:
    """Count the primitives of a program and of the programs inside it."""
    for eqn in jaxpr.eqns:
        into[eqn.primitive.name] += 1
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                primitives_of(inner, into)


def sampler(f: Any, shapes: dict[str, tuple[int, ...]], x: Any) -> Any:
    """A function of a NumPy generator giving one draw of both kernels, one array per output."""

    def outputs(p: Any) -> list[Any]:
        out = jax.tree.leaves(jax.vmap(lambda z: f(p, z))(x))
        return [o.reshape(o.shape[0], -1, o.shape[-1]) for o in out]

    def one(p: Any, signs: Any) -> list[Any]:
        nngp = [
            jnp.einsum("amk,bnk->abmn", o, o) / o.shape[-1] for o in outputs(p)
        ]
        # One random combination of the channels, whose expectation is the mean over channels.
        projected = lambda p: [o @ s / math.sqrt(o.shape[-1]) for o, s in zip(outputs(p), signs)]
        value, back = jax.vjp(projected, p)
        ntk = []
        for i, v in enumerate(value):
            size = v.size
            eye = jnp.eye(size).reshape(size, *v.shape)
            ct = [eye if j == i else jnp.zeros((size, *w.shape)) for j, w in enumerate(value)]
            g = jax.vmap(back)(ct)[0]
            flat = [t.reshape(size, -1) for t in jax.tree.leaves(g)]
            gram = sum(t @ t.T for t in flat)
            b, m = v.shape
            ntk.append(gram.reshape(b, m, b, m).transpose(0, 2, 1, 3))
        return [nngp, ntk]

    struct = lambda shape: jax.ShapeDtypeStruct(shape, jnp.float64)
    p = {name: struct(s) for name, s in shapes.items()}
    signs = [struct((o.shape[-1],)) for o in jax.eval_shape(outputs, p)]
    program = jax.make_jaxpr(one)(p, signs)
    structure = jax.tree.structure(jax.eval_shape(one, p, signs))

    def draw(rng: np.random.Generator) -> list[list[np.ndarray]]:
        values = [rng.normal(size=s.shape) for s in jax.tree.leaves(p)]
        random = [rng.choice([-1.0, 1.0], size=s.shape) for s in signs]
        return jax.tree.unflatten(structure, run(program, *values, *random))

    return draw


def ours(kernels: Any, x: Any, f: Any, p: Any) -> list[list[np.ndarray]]:
    """The library's kernels, or their errors, with positions flattened like the sampler's."""
    result = []
    example = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape[1:], z.dtype), x)
    shapes = [o.shape for o in jax.tree.leaves(jax.eval_shape(f, p, example))]
    for k in kernels:
        row = []
        for out, shape in zip(jax.tree.leaves(k), shapes, strict=True):
            out = np.asarray(out)
            m = math.prod(shape[:-1])
            if out.shape[2:] == (*shape, *shape):  # its channels were read as positions
                out = out.reshape(3, 3, m, shape[-1], m, shape[-1])
                out = np.einsum("abmknk->abmn", out) / shape[-1]
            elif out.shape[2:] != tuple(k for k in shape[:-1] if k > 1) * 2:
                msg = f"kernel {out.shape} for an output {shape}"
                raise NotComparedError(msg)
            row.append(out.reshape(3, 3, m, m))
        result.append(row)
    return result


def statistics(sample: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the draws and its standard error."""
    draws = np.stack(sample)
    return draws.mean(0), draws.std(0, ddof=1) / math.sqrt(len(draws))


def worst(
    mean: np.ndarray, error: np.ndarray, exact: np.ndarray, n: float, name: str, *,
    all_pairs: bool = True,
) -> tuple[float, str]:
    """The largest deviation in units of its allowance, over the entries of one kernel.

    Without ``all_pairs`` the last two examples are not compared with each other.
    """
    if not np.all(np.isfinite(exact)):
        return (math.inf, "not finite") if np.all(np.isfinite(mean)) else (0.0, "")
    if not np.all(np.isfinite(mean)):
        return 0.0, ""
    diagonal = lambda k: np.abs(np.einsum("aamm->am", k))
    size = np.maximum(diagonal(mean), diagonal(exact))
    scale = np.sqrt(size[:, None, :, None] * size[None, :, None, :])
    allowance = np.sqrt(error**2 + (BIAS / n * scale) ** 2) + 1e-9 * (1 + scale)
    z = np.abs(mean - exact) / allowance
    if not all_pairs:
        z[1, 2] = z[2, 1] = 0
    where = np.unravel_index(np.argmax(z), z.shape)
    place = tuple(map(int, where))
    return float(z[where]), (
        f"{name}{place}: ours {exact[where]:.6g}, sampled {mean[where]:.6g} ± {error[where]:.2g}"
    )


def compared(
    found: list[Any], exact: list[Any], n: float, name: str, *, all_pairs: bool = True
) -> tuple[float, str]:
    """The worst over both kernels and all outputs; the comment says at which width."""
    pairs = [
        worst(*found[k][o], exact[k][o], n, f"{kernel}[{o}]", all_pairs=all_pairs)
        for k, kernel in enumerate(("nngp", "ntk")) for o in range(len(exact[k]))
    ]
    z, text = max(pairs, key=lambda pair: pair[0])
    return z, f"z={z:.1f} {text} ({name})"


def extrapolated(narrow: Any, n1: int, wide: Any, n2: int) -> Any:
    """Mean and error at infinite width of values that approach it as 1/width."""
    (m1, e1), (m2, e2) = narrow, wide
    return (n2 * m2 - n1 * m1) / (n2 - n1), np.hypot(n2 * e2, n1 * e1) / (n2 - n1)


def judge(program: Program, near: float = NEAR) -> Verdict:
    """Read, sample, compare.

    Behind jumps, nearly equal examples are given a second chance if nothing but them disagrees.
    """
    verdict = Verdict(program.seed, "read", tuple(program.features))
    rng = np.random.default_rng(program.seed)
    x, close = inputs(program, rng, near)
    history: list[str] = []
    seen_at: list[tuple[int, Any]] = []
    for stage, (n, count, limit) in enumerate(program.stages):
        f, shapes = program.at(n)
        p = {k: jax.ShapeDtypeStruct(s, jnp.float64) for k, s in shapes.items()}
        if stage == 0:
            example = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape[1:], z.dtype), x)
            seen: Counter[str] = Counter()
            primitives_of(jax.make_jaxpr(f)(p, example).jaxpr, seen)
            verdict.primitives = set(seen)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kernel = wl.kernel(f, p)
                exact = ours(kernel.both(x), x, f, p)
                drawn = "draws;" in kernel.describe(x)
                spread = ours(kernel.sampling_error(x, repeats=4), x, f, p) if drawn else None
        except wl.WideLimitError as refused:
            verdict.kind, verdict.error = "refused", type(refused).__name__
            verdict.detail = str(refused)
            return verdict
        except NotComparedError as other:
            verdict.kind, verdict.detail = "not compared", str(other)
            return verdict
        except Exception as crash:
            verdict.kind, verdict.error = "crash", type(crash).__name__
            frames = traceback.extract_tb(crash.__traceback__)
            inside = [f"{s.filename}:{s.lineno}" for s in frames if "widelimit" in s.filename]
            verdict.detail = f"{str(crash)[:300]}\n{' < '.join(inside[::-1][:4])}"
            return verdict
        draw = sampler(f, shapes, x)
        samples = [draw(rng) for _ in range(count)]
        found = [
            [statistics([one[k][o] for one in samples]) for o in range(len(exact[k]))]
            for k in range(2)
        ]
        if spread is not None:
            found = [
                [(m, np.hypot(e, s)) for (m, e), s in zip(*both)] for both in zip(found, spread)
            ]
        verdict.z, text = compared(found, exact, n, f"width {n}")
        verdict.stage = stage
        history.append(text)
        verdict.detail = "\n".join(history)
        if verdict.z < limit:
            return verdict
        seen_at.append((n, found))
    (n1, narrow), (n2, wide) = seen_at[-2:]
    limits = [
        [extrapolated(u, n1, v, n2) for u, v in zip(*both)] for both in zip(narrow, wide)
    ]
    z, text = compared(limits, exact, n1 * n2 / EXPANSION, "extrapolated")
    verdict.detail = "\n".join([*history, text])
    if z < limit:  # slow to converge, and on its way
        verdict.z = z
        return verdict
    if close and near == NEAR and verdict.primitives & JUMPS:
        rest, _ = compared(limits, exact, n1 * n2 / EXPANSION, "extrapolated", all_pairs=False)
        if rest < limit:
            return judge(program, LESS_NEAR)
    verdict.kind = "silent"
    return verdict
