"""What takes a parameter's place: a value stored into it (`p.data = t`, `p.copy_(t)`), a new `nn.Parameter`,
None.

Which attribute a new `nn.Parameter` is given to is read from the text. Not handled: a new Parameter that
travels through a variable first.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from fxgrad.passes.context import Context
from fxgrad.records import Facts, NodeFact, Site, Value
from fxgrad.source.bindings import bindings
from fxgrad.source.names import fits, is_literal, is_unknown, path_of
from fxgrad.source.parsing import load
from fxgrad.torch_api import registry


def stores(facts: Facts, node: NodeFact, target: Value, owned: frozenset[int]) -> bool:
    """Whether `target`, made by `node`, is a parameter with the numbers of something computed. `owned`: the
    `storages`."""
    if node.target == "Tensor.__set__":
        return True
    if node.kind == "leaf":
        # A watch sees several forwards: one stands for all, the others are "torch.nn.Parameter, again".
        return node.target.startswith("torch.nn.Parameter") and replaced(facts, node) is not None
    return target.is_leaf and target.storage in node.writes and target.storage in owned


def storages(facts: Facts) -> frozenset[int]:
    """The storages of the model's parameters."""
    return frozenset(facts.values[v].storage for p in facts.parameters for v in p.values)


def replaced(facts: Facts, node: NodeFact) -> tuple[str, ...] | None:
    """The registered parameters one of whose places the new one takes, each call of a loop another; none
    where only the run knows which; None if it takes no place."""
    path = _attribute(node.site) if node.site is not None else None
    if path is None:
        return None
    if path == "*":
        return () if facts.parameters else None
    inside, prefix = _inside(facts, node.module)
    own = [name for name in inside if fits(path, name.removeprefix(prefix))]
    own = own or [name for name in inside if fits(f"*.{path}", name)][:1]
    return tuple(own) or None


def _inside(facts: Facts, module: str) -> tuple[list[str], str]:
    """The names of the parameters in a module, and what they begin with."""
    prefix = f"{module}." if module else ""
    return [name for p in facts.parameters for name in p.names if name.startswith(prefix)], prefix


def displaced(facts: Facts, site: Site, module: str) -> tuple[str, ...]:
    """The registered parameters of the layer whose place the one built at `site`, in a method of `module`,
    takes."""
    path = _attribute(site)
    if path is None or path == "*":
        return ()
    names, prefix = _inside(facts, module)
    return tuple(name for name in names if fits(f"{path}.*", name.removeprefix(prefix)))


@functools.lru_cache(maxsize=1024)
def _attribute(site: Site) -> str | None:
    """The attribute path that the statement around `site` binds (`fc.weight` of `self.fc.weight = ...`,
    `ps.*` of `self.ps[i] = ...`); "*" for one with a computed name; None if it binds none."""
    for binding in bindings(load(site.file)):
        first, last = binding.first, binding.last
        if binding.kind != "assign" or not first.lineno <= site.line <= (last.end_lineno or last.lineno):
            continue
        words = [*itertools.dropwhile(is_unknown, path_of(binding.base).words)]
        if not binding.item:
            return "*" if "*" in binding.name else ".".join([*words, binding.name])
        if words:
            return ".".join([*words, binding.name])
    return None


def emptied(context: Context) -> Iterator[tuple[Site, str]]:
    """Statements that set a parameter's slot to None from outside its class, with the parameter's name."""
    empty = {
        f"{path}.{name}" if path else name
        for path, module in registry.named_modules(context.model)
        for name, parameter in module._parameters.items()
        if parameter is None
    }
    for file in context.files:
        source = load(file)
        for binding in bindings(source):
            words = path_of(binding.base).words
            if binding.kind != "assign" or not is_literal(binding.value, None) or not words:
                continue
            for name in sorted(empty):
                parts = name.split(".")
                if fits(binding.name, parts[-1]) and len(parts) > 1 and fits(words[-1], parts[-2]):
                    yield binding.site(source), name
