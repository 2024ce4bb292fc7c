"""One report on all processes of a launcher: what each rank saw goes to rank 0, which puts it together and
shows it.

`board` is where shares are left, `member` what one process does about it, `merge` the report on all from
those of each. Verdicts are right under FSDP1 too, where the line behind a missing gradient is not: its flat
parameters hide which one a module read. Not handled: which line a stage runs that
`torch.distributed.pipelining.pipeline` traced (generated text is named), and a rank that aborts inside a
collective.
"""

from __future__ import annotations
