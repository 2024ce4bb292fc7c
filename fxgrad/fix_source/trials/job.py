"""What travels between the process that edits and the fresh ones that run the user's program: the job, the
trial's outcome.

Both are frozen and without tensors or objects of the user's. `Subject` says how a fresh process gets the
program: MODEL as the command line has it, or a function of the caller's that builds the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fxgrad.fix_source.trouble import Trouble
from fxgrad.records import Finding, Options

DEFAULT_LOADER = "fxgrad.fix_source.trials.worker:load_step"


@dataclass(frozen=True, slots=True)
class Subject:
    """How to get the program anew.

    `loader` is "package.module:function", importable without the user's code. It is called with `arguments`
    (JSON types; where one is the path of an edited file, alone or before a `:name`, a copy's path stands
    instead) and returns an object, or a context manager of one, with the attributes `model`, `inputs`,
    `loss`, `optimizer` and `expect`.
    """

    arguments: Mapping[str, object]
    loader: str = DEFAULT_LOADER

    @classmethod
    def of(
        cls,
        model: str,
        *,
        inputs: Sequence[str] = (),
        loss: str | None = None,
        expect: Sequence[str] | None = None,
        trust_pickle: bool = False,
        arguments: Sequence[str] = (),
        argv: Sequence[str] = (),
    ) -> Subject:
        """What the command line gives: MODEL, `--input`, `--loss`, `--expect`, `--trust-pickle`, `--arg`, and
        what stands after `--`."""
        given = {"model": model, "inputs": list(inputs), "loss": loss, "trust_pickle": trust_pickle}
        given |= {"arguments": list(arguments), "argv": list(argv)}
        return cls({**given, "expect": list(expect) if expect is not None else None})


@dataclass(frozen=True, slots=True)
class Job:
    """One trial. `texts`: pairs of a file and the copy that stands for it, below the folder `root`;
    `reference`: the file with the numbers to compare with; `make_reference`: write it instead. `prove`:
    compare numbers at all.
    """

    subject: Subject
    options: Options
    texts: tuple[tuple[str, str], ...]
    root: str
    path: tuple[str, ...]
    folder: str
    reference: str
    make_reference: bool
    prove: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """What a fresh process found. `error`: why it could not analyse; `difference`: how its numbers differ
    from the reference's ("" not at all), `proof`: what was compared. `unproved`: why a first trial's numbers
    can prove nothing, `untrue`: why out-of-place writing would be wrong, or torch gives no meaning to the
    write; "" where neither is so.
    """

    error: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    files: tuple[str, ...] = ()
    difference: str = ""
    proof: str = ""
    unproved: str = ""
    untrue: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings and notes."""
        return tuple(trouble.finding for trouble in self.troubles)
