"""What a benchmark found, as data and as a table: `Row`, `Benchmark`. Not handled: measuring; that is
`fxgrad.fix_graph.timing`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape

from tabulate import tabulate

HEADERS = ("form", "forward ms", "forward+backward ms", "ratio", "peak MiB", "ratio", "kernels", "nodes")
ORIGINAL, AGAIN, ALLOWED = "original", "original, again", "allow_mutation_on_saved_tensors"
COMPILED = ", compiled"


@dataclass(frozen=True, slots=True)
class Row:
    """One form of the model. Times in milliseconds, each with the first and third quartile; memory in bytes;
    `kernels`: how many one forward and backward launches. None: not measured.

    `failure`: why it does not run; "" if it does.
    """

    name: str
    forward: float | None = None
    forward_spread: tuple[float, float] | None = None
    step: float | None = None
    step_spread: tuple[float, float] | None = None
    memory: int | None = None
    nodes: int | None = None
    failure: str = ""
    kernels: int | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All rows, and what they were measured on. `sizes`: shape and dtype of each input. `runs`: timed runs
    per row. `clock`: what times are of."""

    rows: tuple[Row, ...]
    device: str
    device_name: str
    dtype: str
    sizes: tuple[str, ...]
    parameters: int
    versions: str
    threads: int
    runs: int
    clock: str

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(r for r in self.rows if r.name == name)

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def base(self) -> Row:
        """What ratios are of: the original, or, where it does not run, the original with its writes allowed;
        the first row at worst."""
        return next(
            (row for row in self.rows if row.name in (ORIGINAL, ALLOWED) and not row.failure), self.rows[0]
        )

    def base_of(self, row: Row) -> Row:
        """What the ratios of `row` are of: `base`; for a compiled form the compiled original, where that
        runs."""
        compiled = next((r for r in self.rows if r.name == ORIGINAL + COMPILED and not r.failure), None)
        return compiled if compiled is not None and row.name.endswith(COMPILED) else self.base

    def __str__(self) -> str:
        return self._table("simple")

    def __repr__(self) -> str:
        """In one line: each form with its time for a step."""
        times = (
            f"{row.name} {'does not run' if row.step is None else f'{row.step:.3f} ms'}" for row in self.rows
        )
        return f"Benchmark({self.device}: {', '.join(times)})"

    def _repr_html_(self) -> str:
        return self._table("html")

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def markdown(self) -> str:
        """The same table as markdown."""
        return self._table("github")

    def _table(self, style: str) -> str:
        shown = [
            i
            for i, name in enumerate(HEADERS)
            if name != "kernels" or any(row.kernels is not None for row in self.rows)
        ]
        cells = [[row[i] for i in shown] for row in self._cells()]
        table = tabulate(cells, headers=[HEADERS[i] for i in shown], tablefmt=style, disable_numparse=True)
        return f"{table}<p>{escape(self.where())}</p>" if style == "html" else f"{table}\n\n{self.where()}"

    def where(self) -> str:
        """Where it was measured, in a sentence."""
        cpu = f"; a CPU run, {self.threads} threads: not what a GPU shows" if self.device == "cpu" else ""
        inputs = ", ".join(self.sizes) or "none"
        place = (
            f"{self.device} ({self.device_name}), {self.dtype}, inputs {inputs}, {self.parameters:,} "
            "parameters"
        )
        compiled = {self.base_of(row).name for row in self.rows} - {self.base.name}
        more = f", those of compiled forms of `{compiled.pop()}`" if compiled else ""
        ratios = f"Medians (middle half); ratios are of `{self.base.name}`{more}."
        return f"{place}; {self.versions}; {self.runs} interleaved runs, {self.clock}{cpu}. {ratios}"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.name,
                _time(row.forward, row.forward_spread),
                row.failure or _time(row.step, row.step_spread),
                _ratio(row.step, self.base_of(row).step),
                "" if row.memory is None else f"{row.memory / 2**20:.2f}",
                _ratio(row.memory, self.base_of(row).memory),
                "" if row.kernels is None else str(row.kernels),
                "" if row.nodes is None else str(row.nodes),
            )
            for row in self.rows
        ]


def _time(median: float | None, spread: tuple[float, float] | None) -> str:
    return "" if median is None or spread is None else f"{median:.3f} ({spread[0]:.3f} to {spread[1]:.3f})"


def _ratio(value: float | None, base: float | None) -> str:
    return "" if not value or not base else f"{value / base:.3f}"
