"""What channels share: fields the same in every draw, copies, sums beside what they sum."""

from __future__ import annotations

from widelimit.errors import SharedAcrossWidthError
from widelimit.graph import nodes as n
from widelimit.graph.build import Builder
from widelimit.graph.index import Relation


def gaussian_leaves(node: n.Node) -> list[n.Node]:
    """The sources and entries a node is made of, at its own layer."""
    if isinstance(node, n.Source | n.Overlap | n.Entry | n.Tangent | n.Value):
        return [node]
    assert isinstance(node, n.Field)
    return [leaf for p in node.parts for leaf in gaussian_leaves(p.node)]


def is_constant_field(node: n.Node) -> bool:
    """Whether a field is the same in every draw: constants that are trained."""
    return all(isinstance(x, n.Tangent | n.Value) for x in gaussian_leaves(node))


def refuse_copies(b: Builder, field: n.Field, summed: set[int]) -> None:
    """A sum over channels that are copies of each other has to be over all channels.

    Raises
    ------
    SharedAcrossWidthError
        If what they share stays: the sum is then not Gaussian, and its mean is random.
    """
    left = set(range(len(field.channels))) - summed
    if summed & field.alike and (left or field.alone):
        raise SharedAcrossWidthError(
            "a sum over channels that share random numbers",
            why="what they share, such as the attention weights of one head, does not average "
            "out in the sum.",
            remedy="sum over the heads as well, in one layer.",
            where=b.where,
        )


def refuse_own_overlap(b: Builder, fields: list[n.Field]) -> None:
    """A sum over channels, repeated over them again, beside one of the fields that it sums.

    Channel by channel they are independent in the limit, but their mean product falls off as
    1/sqrt(width) only, more slowly than the fluctuations that are followed elsewhere.
    """
    for field in fields:
        summed = [d for x in field.overlaps for d in x.operand.draws]
        others = [d for x in fields if x is not field for d in n.draws_of(x)]
        if any(d.relation(e) is not Relation.DISJOINT for d in summed for e in others):
            raise SharedAcrossWidthError(
                "a sum over channels meets one of the fields that it sums",
                why="it is independent of each channel only up to 1/sqrt(width), and over all "
                "channels that adds up.",
                remedy="use other weights for the field that the sum multiplies (in attention, "
                "other weights for the values than for queries and keys).",
                where=b.where,
            )
