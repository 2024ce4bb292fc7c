"""The report as one HTML page that needs nothing else: no network, no server, no build.

Made from a `Report` alone: the module tree coloured by verdict and folded by module (a thousand layers are a
few lines), every finding with its source excerpt and its path from the loss to the cut, and a filter by
parameter name, verdict or code. Keyboard: `/` jumps to the filter, arrows and Enter fold as in any tree,
Escape clears. Follows the reader's dark mode. Not handled: drawing the whole graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from itertools import groupby

from fxgrad.records import Finding, Step
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.source.excerpt import excerpt, place

NAME = "html"

_DEPTH = 100  # so many modules in one another fold; what lies deeper has the rest of its path in its name
_RUN = 8  # so many layers side by side without a fault are one line
_RANK = {"blocked": 0, "none": 1, "zero": 2, "branch": 3, "frozen": 4, "flows": 5}


@dataclass(slots=True)
class _Module:
    """A node of the tree: inner modules and parameters by name."""

    modules: dict[str, _Module] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


def render(report: ReportData, *, verbose: bool = False) -> str:
    """The whole page."""
    findings = [*report.findings, *(report.notes if verbose else ())]
    errors = sum(f.severity == "error" for f in findings)
    title = f"fxgrad: {report.model}"
    starved = sum(v != "flows" for v in _shown_verdicts(report).values())
    headline = (
        f"{len(report.verdicts)} parameters, {starved} without a full gradient, {errors} "
        f"error{'s' if errors != 1 else ''}"
    )
    loss = f"loss: {report.loss_used}; " if report.loss_used else ""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<header><h1>{escape(report.model + across_ranks.title(report))}</h1><p "
        f"class=headline>{escape(headline)}</p>",
        f"<p class=muted>{_prose(loss)}on {escape(report.values)} values, {report.nodes} steps</p>",
        *(
            f"<p class=muted>{_prose(said)}</p>"
            for said in [*across_ranks.endings(report), *across_ranks.differing(report)]
        ),
        '<input id=filter type=search placeholder="filter: name, verdict or code ( / )" aria-label="filter '
        'parameters and findings">',
        f"<p class=legend>{''.join(_badge(v, v) for v in _RANK)}</p></header>",
        "<main><section aria-label=findings><h2>Findings</h2>",
        *(_finding(f, number, across_ranks.where(report, f)) for number, f in enumerate(findings)),
        ""
        if findings
        else "<p class=fine>No findings: every parameter that should train gets a gradient.</p>",
        "</section><section aria-label=parameters><h2>Parameters</h2><div id=tree>",
        _tree(report),
        f"</div></section></main><script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _shown_verdicts(report: ReportData) -> dict[str, str]:
    frozen = {n for p in report.parameters if not p.requires_grad for n in p.names}
    return {
        name: "frozen" if name in frozen and verdict == "none" else verdict
        for name, verdict in report.verdicts.items()
    }


def _tree(report: ReportData) -> str:
    root = _Module()
    for name, verdict in _shown_verdicts(report).items():
        *path, last = name.split(".", _DEPTH)
        module = root
        for part in path:
            module = module.modules.setdefault(part, _Module())
        module.parameters[last] = verdict
    causes = {
        name: (f.code, f"finding-{number}")
        for number, f in reversed([*enumerate(report.findings)])
        for name in f.parameters
    }
    return _children(root, "", causes)


def _children(module: _Module, prefix: str, causes: dict[str, tuple[str, str]]) -> str:
    rows = []
    for name, verdict in module.parameters.items():
        full = f"{prefix}{name}"
        code, anchor = causes.get(full, ("", ""))
        cause = f'<a class=code href="#{anchor}">{code}</a>' if code else ""
        search = escape(f"{full} {verdict} {code}".lower(), quote=True)
        rows.append(
            f'<div class=p data-s="{search}"><span class="v {verdict}">{verdict}</span> {escape(name)} '
            f"{cause}</div>"
        )
    folded = [
        (name, inner, _module_row(name, inner, prefix, causes)) for name, inner in module.modules.items()
    ]
    for fine, group in groupby(
        folded, key=lambda item: item[0].isdigit() and set(_counts(item[1])) <= {"flows", "frozen"}
    ):
        items = list(group)
        inside = "".join(row for _, _, row in items)
        if fine and len(items) >= _RUN:
            counts = _counts(_Module(modules={name: inner for name, inner, _ in items}))
            badges = "".join(_badge(v, str(n)) for v, n in sorted(counts.items()))
            inside = (
                f'<details class="m flows"><summary>{items[0][0]} to {items[-1][0]} '
                f"{badges}</summary>{inside}</details>"
            )
        rows.append(inside)
    return "".join(rows)


def _module_row(name: str, inner: _Module, prefix: str, causes: dict[str, tuple[str, str]]) -> str:
    counts = _counts(inner)
    worst = min(counts, key=lambda v: _RANK.get(v, 9))
    badges = "".join(_badge(v, str(n)) for v, n in sorted(counts.items(), key=lambda i: _RANK.get(i[0], 9)))
    return (
        f'<details class="m {worst}"><summary>{escape(name)} '
        f"{badges}</summary>{_children(inner, f'{prefix}{name}.', causes)}</details>"
    )


def _badge(verdict: str, text: str) -> str:
    return f'<span class="v {verdict}">{text}</span>'


def _counts(module: _Module) -> dict[str, int]:
    counts: dict[str, int] = {}
    pending = [module]
    while pending:
        current = pending.pop()
        pending.extend(current.modules.values())
        for verdict in current.parameters.values():
            counts[verdict] = counts.get(verdict, 0) + 1
    return counts


def _finding(finding: Finding, number: int, ranks: str) -> str:
    where = ", ".join(
        filter(None, [escape(place(finding.site)) if finding.site else "", f"on {ranks}" if ranks else ""])
    )
    search = escape(
        f"{finding.code} {finding.name} {finding.message} {' '.join(finding.parameters)}".lower(), quote=True
    )
    lines = [
        f'<article id="finding-{number}" class="finding {finding.severity}" data-s="{search}">',
        f"<h3><span class=sev>{finding.severity}</span> {finding.code} {escape(finding.name)} "
        f"<small>{where}</small></h3>",
        f"<p>{_prose(finding.message)}</p>",
    ]
    if finding.site is not None:
        shown = "\n".join(excerpt(finding.site))
        lines.append(f"<pre>{escape(shown)}</pre>" if shown else "")
    if finding.path:
        lines.append(f"<p class=path>{' ← '.join(_step(step) for step in finding.path)}</p>")
    if finding.parameters:
        names = "".join(f"<li>{escape(name)}</li>" for name in finding.parameters)
        lines.append(
            f"<details class=names><summary>{len(finding.parameters)} "
            f"parameters</summary><ul>{names}</ul></details>"
        )
    if finding.fix is not None:
        lines.append(f"<p class=help><b>help:</b> {_prose(finding.fix.advice)}</p>")
        lines += [
            f"<pre class=diff>- {escape(edit.old)}\n+ {escape(edit.new)}</pre>" for edit in finding.fix.edits
        ]
    return "\n".join([*lines, "</article>"])


def _prose(text: str) -> str:
    """Backticks are code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _step(step: Step) -> str:
    where = f" <small>{escape(place(step.site))}</small>" if step.cut and step.site else ""
    return (
        f"<span class=cut>{escape(step.label)}{where}</span>"
        if step.cut
        else f"<span>{escape(step.label)}</span>"
    )


_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c1e21;--muted:#5d6470;--line:#d9dde3;--code:#f4f5f7;--bad:#b3261e;--warn:#8a5a00;
--ok:#1a6b3c;--note:#31549b}
@media (prefers-color-scheme:dark){:root{--bg:#15171a;--fg:#e6e8eb;--muted:#9aa3ae;--line:#32373e;--code:#1f2226;--bad:#ff8a80;
--warn:#f2b94b;--ok:#7fd8a2;--note:#9db8f2}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
header{position:sticky;top:0;background:var(--bg);border-bottom:1px solid var(--line);padding:12px 24px;z-index:1}
h1{font-size:20px;margin:0}h2{font-size:15px;text-transform:uppercase;letter-spacing:.06em;color:var(--muted)}
h3{font-size:15px;margin:0 0 4px}.headline{margin:2px 0;font-weight:600}.muted,small{color:var(--muted);font-weight:400;margin:0}
main{display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:32px;padding:8px 24px 64px}
@media (max-width:900px){main{grid-template-columns:1fr}}
#filter{width:100%;max-width:520px;padding:6px 10px;margin-top:8px;border:1px solid var(--line);border-radius:6px;
background:var(--code);color:inherit;font:inherit}
.legend{margin:8px 0 0}.v{display:inline-block;font-size:12px;padding:0 7px;border-radius:9px;border:1px solid currentColor;margin-right:5px}
.v.none,.v.blocked{color:var(--bad)}.v.zero,.v.branch{color:var(--warn)}.v.flows{color:var(--ok)}.v.frozen{color:var(--note)}
article{border:1px solid var(--line);border-left:4px solid var(--note);border-radius:6px;padding:10px 14px;margin:0 0 14px}
article.error{border-left-color:var(--bad)}article.warning{border-left-color:var(--warn)}.sev{text-transform:uppercase;font-size:12px}
article.error .sev{color:var(--bad)}article.warning .sev{color:var(--warn)}article p{margin:4px 0}
pre{background:var(--code);padding:8px 10px;border-radius:6px;overflow:auto;font:13px/1.45 ui-monospace,monospace}
code{font-family:ui-monospace,monospace;font-size:.93em;background:var(--code);padding:0 3px;border-radius:3px}
.path span{white-space:nowrap}.cut{color:var(--bad);font-weight:600}.fine{color:var(--ok)}
details.m{margin-left:0;border-left:1px solid var(--line);padding-left:12px}details.m>summary{cursor:pointer;padding:2px 0}
.p{padding:1px 0 1px 18px;font-family:ui-monospace,monospace;font-size:13px}.code{color:var(--note);font-size:12px}
.hide{display:none}summary:focus-visible,input:focus-visible,a:focus-visible{outline:2px solid var(--note);outline-offset:2px}
"""

_SCRIPT = """
const box=document.getElementById('filter'),tree=document.getElementById('tree');
function bad(d){return ['none','zero','branch','blocked'].some(v=>d.classList.contains(v))}
let open=0;for(const d of tree.querySelectorAll('details.m'))if(bad(d)&&open<400){d.open=true;open++}
const state=new Map([...tree.querySelectorAll('details.m')].map(d=>[d,d.open]));
function apply(){const q=box.value.trim().toLowerCase();
for(const e of document.querySelectorAll('[data-s]'))e.classList.toggle('hide',q!==''&&!e.dataset.s.includes(q));
for(const d of [...tree.querySelectorAll('details.m')].reverse()){const hit=!!d.querySelector('.p:not(.hide)');
d.classList.toggle('hide',!hit);d.open=q===''?state.get(d):hit}}
box.addEventListener('input',apply);
document.addEventListener('keydown',e=>{if(e.key==='/'&&document.activeElement!==box){e.preventDefault();box.focus();box.select()}
if(e.key==='Escape'){box.value='';apply();box.blur()}
if((e.key==='ArrowRight'||e.key==='ArrowLeft')&&document.activeElement.tagName==='SUMMARY'){
document.activeElement.parentElement.open=e.key==='ArrowRight'}
if((e.key==='ArrowDown'||e.key==='ArrowUp')&&document.activeElement.tagName==='SUMMARY'){e.preventDefault();
const all=[...document.querySelectorAll('summary')].filter(s=>s.offsetParent!==null);
const next=all[all.indexOf(document.activeElement)+(e.key==='ArrowDown'?1:-1)];if(next)next.focus()}});
"""
