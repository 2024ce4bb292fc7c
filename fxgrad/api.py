"""`fxgrad.fix`: the mended graph of `fxgrad.fix_graph.fix.fix`, with the user's source beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from fxgrad.fix_graph.fix import FixResult
from fxgrad.fix_graph.fix import fix as graph_fix
from fxgrad.records import Edit, Options

if TYPE_CHECKING:
    from fxgrad.fix_source.live import LiveSource


class _Later:
    """A `LiveSource` that is made when first asked for: what mends text takes a while to import, and most
    never ask."""

    def __init__(
        self, model: object, inputs: object, loss: Callable[..., object] | None, options: Options
    ) -> None:
        self._given = (model, inputs, loss, options)

    @cached_property
    def _live(self) -> LiveSource:
        from fxgrad.fix_source.live import LiveSource

        return LiveSource(*self._given)

    def edits(self) -> tuple[Edit, ...]:
        return self._live.edits()

    def diff(self, root: str | None = None) -> str:
        return self._live.diff(root)

    def write(self) -> tuple[str, ...]:
        return self._live.write()


def fix(
    model: object,
    inputs: object,
    *,
    loss: Callable[..., object] | None = None,
    options: Options | None = None,
    copy: bool = False,
) -> FixResult:
    """The model as a verified GraphModule whose backward runs and gives the right gradients, and the same as
    edits of its source.

    Args:
        model, inputs, loss: as for `fxgrad.analyze`; the inputs must be real tensors. options:
        `rewrite="needed"` rewrites what breaks backward or falsifies a gradient, `"all"` every in-place
        write. copy: give the module parameters of its own instead of the model's.

    Returns:
        The result. The model, its gradients, buffers and the random state are as before. `source_edits` costs
        nothing until it is read; for that the result holds on to the model and the inputs.

    Raises:
        FixError: no such module can be given; the reason names the line that stands in the way.
        InputError: the inputs do not fit the model.
    """
    options = options or Options()
    return graph_fix(
        model, inputs, loss=loss, options=options, copy=copy, source=_Later(model, inputs, loss, options)
    )
