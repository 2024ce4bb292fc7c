"""Aliases: which nodes of a graph share memory, which write it, and which written tensors backward still
needs.

One `Aliases` record of a `torch.fx.GraphModule`; `fxgrad.passes.rewrites.look` makes it by running the graph
once under autograd. Definitions, cited by number where they are used:
 1. Two results *alias* if they share a storage. A result is the *same* as an earlier node's if it is that
    very tensor object (`add_`, an identity module); else it is a *view* of those arguments whose storage it
    has; else it is the *root* of a new storage.
 2. A storage is *external* if a placeholder or an attribute of the module has it: what is written there the
    caller can see.
 3. A node *writes* a storage if an operator that ran inside it mutates a tensor of that storage, whatever the
    version counter says. The write is of *metadata* if every such operator only changes a tensor's shape or
    its place in autograd (`t_`, `detach_`).
 4. A *save* is a tensor that autograd kept for backward while a node ran; its *overwriter* is the first node
    after (or that same node, once it had saved) that writes the storage. A save is *used* if a backward from
    the outputs reads it.
Not handled: tensors without a storage (sparse) alias nothing; memory shared through NumPy, or between parts
of one result that no argument explains, makes a storage *tangled*: nobody should move its content elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.fx

from fxgrad.torch_api.tensors import Geometry


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor's whereabouts when its node had run. `storage` is -1 where it has none."""

    storage: int
    geometry: Geometry
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool


@dataclass(frozen=True, slots=True)
class NodeAliases:
    """What one node returned and wrote. `single`: its result is a tensor, not a structure of `places`.

    `same_as` and `views` are definition 1; `copied`: it would be a view of these, had the lenient run not
    given it its own memory. `needs_grad`: its arguments that required grad before it ran. `several`: one of
    several views that one call made, or a view of such a one, made while grad was on. `number` is the result
    of a node that computes a Python number.
    """

    name: str
    index: int
    single: bool
    places: tuple[Place, ...]
    same_as: str | None
    views: tuple[str, ...]
    copied: tuple[str, ...]
    grad: bool
    inference: bool
    writes: tuple[int, ...]
    metadata: bool
    random: bool
    needs_grad: tuple[str, ...]
    several: bool
    number: int | float | bool | None


@dataclass(frozen=True, slots=True)
class Save:
    """Definition 4. `arguments`: argument nodes of the saver on that storage (none: it saved its own result).

    `counted`: the version counter saw the overwriting; if not, backward runs on the wrong value.
    """

    saver: str
    storage: int
    geometry: Geometry
    arguments: tuple[str, ...]
    overwriter: str | None
    counted: bool
    used: bool


@dataclass(frozen=True, slots=True)
class Aliases:
    """The whole graph: `nodes` in execution order by name, definitions 2 and 4, `tangled` storages."""

    nodes: Mapping[str, NodeAliases]
    external: frozenset[int]
    tangled: frozenset[int]
    saves: tuple[Save, ...]

    def place(self, node: object) -> Place | None:
        """Where the one tensor that a node returns lies."""
        note = self.nodes.get(node.name) if isinstance(node, torch.fx.Node) else None
        return note.places[0] if note is not None and note.single else None

    def rank(self, node: object) -> int:
        """The number of dimensions of a node's tensor, 0 for anything else."""
        place = self.place(node)
        return len(place.geometry.shape) if place is not None else 0

    def is_number(self, node: object) -> bool:
        """Whether a node computes a Python number."""
        return (
            isinstance(node, torch.fx.Node)
            and node.name in self.nodes
            and self.nodes[node.name].number is not None
        )

    def is_mask(self, node: object, rank: int) -> bool:
        """Whether a node's tensor is a bool mask of `rank` dimensions."""
        place = self.place(node)
        return place is not None and place.dtype == torch.bool and len(place.geometry.shape) == rank

    @property
    def hazards(self) -> tuple[Save, ...]:
        """The saves that backward reads and finds overwritten."""
        return tuple(s for s in self.saves if s.overwriter is not None and s.used)
