"""The source edits of a program that lives in this process: the likeliest one for each write, in texts that
nobody has run yet.

For `FixResult.source_edits`: a live model cannot be built anew, so nothing here is tried in a fresh process
as `fxgrad.fix_source.mend` does. Where a module was built is looked up in the text. Not handled: unsafe
fixes, findings that only a trial could tell apart, and models whose files were edited since they were
imported. A write under a name that a loop or a comprehension binds to several tensors in turn is left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cached_property

from fxgrad.diagnosis.analyze import Examined, examine
from fxgrad.fix_source import patch
from fxgrad.fix_source.patch import Mended
from fxgrad.fix_source.sheet import Placed, Sheet, apply, read, sheet
from fxgrad.fix_source.syntax import arguments
from fxgrad.fix_source.trouble import Trouble, every_write, troubles
from fxgrad.fix_source.ways.every_way import proposals
from fxgrad.fix_source.ways.proposal import Proposal
from fxgrad.program.program import Program
from fxgrad.records import Edit, Options, Site
from fxgrad.records.errors import FixError
from fxgrad.source import attribute_site, files_of
from fxgrad.source.objects import origin
from fxgrad.source.parsing import enclosing_function, functions
from fxgrad.torch_api import registry


class LiveSource:
    """The source behind a live model, mended when first asked for: then the model is analysed as it is at
    that time."""

    def __init__(
        self, model: object, inputs: object, loss: Callable[..., object] | None, options: Options
    ) -> None:
        self._given = (model, inputs, loss)
        self._options = options

    @cached_property
    def files(self) -> tuple[Mended, ...]:
        """The files with their edits."""
        model, inputs, loss = self._given
        return mended(
            examine(model, inputs, loss=loss, options=self._options),
            everything=self._options.rewrite == "all",
        )

    def edits(self) -> tuple[Edit, ...]:
        """The change as edits of the files as they lie on disk."""
        return tuple(edit for file in self.files for edit in file.edits())

    def diff(self, root: str | None = None) -> str:
        """The change as a unified diff."""
        return patch.diff(self.files, root)

    def write(self) -> tuple[str, ...]:
        """Write the files and return their names."""
        return patch.write(self.files)


def mended(examined: Examined, *, everything: bool = False) -> tuple[Mended, ...]:
    """The user's files with an edit for each error-level finding of an analysis that is about a write; with
    `everything` for each write.

    What no edit can be proposed for is left out.
    """
    files: dict[str, Mended] = {}

    def page(file: str) -> Sheet:
        if origin(file) != "user":
            raise FixError(f"{file} is not the user's")
        if file not in files:
            files[file] = Mended.unchanged(read(file))
        return sheet(file, files[file].text)

    def built(module: object) -> tuple[Site, ...]:
        return _built(examined.lab.program, module)

    wanted = [finding for finding in examined.report.findings if finding.severity == "error"]
    found = [t for t in troubles(wanted, examined, built) if t.is_write]
    found += every_write(found, examined, built) if everything else ()
    # From the end of the text backwards, so that the places of those before it stay true.
    for trouble in sorted(found, key=_place, reverse=True):
        offered = list(proposals(page, trouble))
        if _has_other_names(page, trouble):
            if trouble.saves > 1:
                continue  # each saved tensor needs a clone of its own, and only the first is known here
            offered.sort(
                key=lambda item: not item.how.endswith(("where it is saved", "clones what was saved"))
            )  # right whoever reads the tensor later
        texts = next(filter(None, (_applied(page, proposal) for proposal in offered)), {})
        for file, text in texts.items():
            files[file] = files[file].changed(text, trouble.finding.code, "safe")
    return tuple(file for file in files.values() if file.text != file.stored.text)


def _has_other_names(pages: Callable[[str], Sheet], trouble: Trouble) -> bool:
    """Whether the text around a write has the tensor under names that `may_be_shared` does not follow.

    By way of a loop, a comprehension, a pattern, a tuple, a generator or a property.
    """
    if trouble.site is None:
        return False
    try:
        page = pages(trouble.site.file)
    except FixError:
        return False
    node = next(iter(page.nodes_at(trouble.site)), None)
    function = enclosing_function(page.parsed, node) if node is not None else None
    if node is None or function is None:
        return False
    words = _words(page, _written(node)) or [""]
    if any(item.decorator_list and item.name in words for item in functions(page.parsed)):
        return True  # a property, perhaps
    for item in ast.walk(function):
        bound = _bound(item)
        if isinstance(item, ast.Yield | ast.YieldFrom) or (
            bound is not None and words[0] in _words(page, bound)
        ):
            return True
    return False


def _written(node: Placed) -> Placed:
    """What a writing expression writes into."""
    if isinstance(node, ast.AugAssign):
        return node.target
    if isinstance(node, ast.Call):
        given = arguments(node)
        return node.func.value if isinstance(node.func, ast.Attribute) else given[0].value if given else node
    return node


def _bound(item: ast.AST) -> Placed | ast.pattern | None:
    """What binds names to tensors that `may_be_shared` does not follow."""
    if isinstance(item, ast.For | ast.AsyncFor | ast.comprehension):
        return item.target
    if isinstance(item, ast.match_case):
        return item.pattern
    return item if isinstance(item, ast.Assign) and isinstance(item.value, ast.Tuple) else None


def _words(page: Sheet, node: Placed | ast.pattern) -> list[str]:
    return re.findall(r"\w+", page.source(node))


def _applied(page: Callable[[str], Sheet], proposal: Proposal) -> dict[str, str]:
    """The new text of each file; none where the edits cannot be made or are no Python."""
    texts = {}
    try:
        for file in dict.fromkeys(edit.site.file for edit in proposal.edits):
            texts[file] = apply(page(file).text, file, proposal.edits)
            compile(texts[file], file, "exec", dont_inherit=True)
    except (FixError, SyntaxError):
        return {}
    return texts


def _place(trouble: Trouble) -> tuple[str, int, int]:
    site = trouble.site
    return (site.file, site.line, site.column) if site is not None else ("", 0, 0)


def _built(target: Program, module: object) -> tuple[Site, ...]:
    """The calls with an `inplace` in the statement that assigns the module to its attribute."""
    path = next((name for name, item in registry.named_modules(target.root) if item is module), "")
    holder, _, attribute = path.rpartition(".")
    while holder and attribute.isdigit():  # an item of a Sequential: the statement assigns the whole
        holder, _, attribute = holder.rpartition(".")
    site = attribute_site(target.root.get_submodule(holder), attribute, files_of(target.model, target.root))
    if site is None or origin(site.file) != "user":
        return ()
    try:
        page = sheet(site.file, read(site.file).text)
    except FixError:
        return ()
    span = page.span_of_site(site) or (page.offset(site.line, 1), page.offset(site.line, 1))
    calls = (node for node in page.of_kind(ast.Call) if span[0] <= page.span(node)[0] < span[1])
    kind = type(module).__name__
    return tuple(
        page.edit(*page.span(call), "").site for call in calls if page.source(call.func).endswith(kind)
    )
