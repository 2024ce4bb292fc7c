"""Tensors that a step reads for their shape, type and device alone: `torch.zeros_like(h)`, `h.new_ones(3)`,
`x.expand_as(h)`.

What such a step makes owes no number to them, so that no data flows. Not handled: sizes (`h.shape`), which
are Python numbers.
"""

from __future__ import annotations

from fxgrad.records import Flow, NodeFact

MADE_LIKE = frozenset(
    (
        "zeros_like ones_like full_like rand_like randn_like randint_like empty_like new_zeros new_ones "
        "new_full "
        "new_empty"
    ).split()
)
_SHAPED_LIKE = frozenset(["expand_as", "view_as", "reshape_as", "type_as"])
LENDERS = MADE_LIKE | _SHAPED_LIKE
# what looks at a value relative to the others along a dimension, see `fxgrad.passes.analyses.zeros`
RELATIVE = frozenset(
    (
        "softmax log_softmax softmin gumbel_softmax cross_entropy layer_norm native_layer_norm var std "
        "scaled_dot_product_attention"
    ).split()
)
TOLD_APART = LENDERS | RELATIVE  # of whose calls a watch notes which argument is which
_FIRST = frozenset([0, "self", "input"])
_SECOND = frozenset([1, "other", "tensor"])


def lends_its_shape(node: NodeFact, flow: Flow) -> bool:
    """Whether the step takes no number of the flow's source."""
    name = node.target.rpartition(".")[2]
    if name not in LENDERS:
        return False
    places = {place for place, value in node.operands if value == flow.source}
    return bool(places) and places <= (_FIRST if name in MADE_LIKE else _SECOND)
