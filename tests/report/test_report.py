"""Reports made by hand, written in every format: what a reader sees, and what a program that reads it may rely on."""

from __future__ import annotations

import fnmatch
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxgrad.passes import RULES
from fxgrad.records import Decision, Edit, Finding, Fix, ParameterFact, Raised, Site, Step
from fxgrad.records.errors import FxgradError
from fxgrad.records.ranks import Ranks
from fxgrad.report import FORMATS, Report, as_json
from fxgrad.report.fingerprint import fingerprints
from fxgrad.report.globs import grouped, shown, text
from fxgrad.source.excerpt import excerpt, place, short_path

SOURCE = """\
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        h = self.a(x).detach()
        return self.head(h)
"""


@pytest.fixture(autouse=True)
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`model.py` in the current directory."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.py"
    file.write_text(SOURCE)
    return file


def detach_site() -> Site:
    return Site(os.path.abspath("model.py"), 7, 13, 7, 31, "Net.forward")


def detached(parameters: tuple[str, ...] = ("a.weight", "a.bias"), **changes: Any) -> Finding:
    site = detach_site()
    values: dict[str, Any] = {
        "code": "FXG103",
        "name": "detached-path",
        "severity": "error",
        "message": "`detach` cuts the only path",
        "site": site,
        "parameters": parameters,
        "path": (Step("loss"), Step("head"), Step("detach", site, cut=True), *map(Step, parameters[:1])),
        "fix": Fix("drop the `detach`"),
    }
    return Finding(**{**values, **changes})


def fact(name: str, *, names: tuple[str, ...] = (), requires_grad: bool = True) -> ParameterFact:
    return ParameterFact(name, names or (name,), (2, 3), requires_grad, name.rpartition(".")[0], "Linear", True, (1,), "some")


VERDICTS = {"a.weight": "none", "a.bias": "none", "head.weight": "flows", "head.bias": "flows"}


def guilty(**changes: Any) -> Report:
    values: dict[str, Any] = {
        "verdicts": VERDICTS,
        "findings": (detached(),),
        "loss_used": "the output itself",
        "model": "Net",
    }
    return Report(**{**values, **changes})


def healthy(**changes: Any) -> Report:
    verdicts = {"a.weight": "flows", "a.bias": "flows"}
    return Report(**{"verdicts": verdicts, "findings": (), "model": "Net", "loss_used": "the output itself", **changes})


# ------------------------------------------------------------------------------------------------------------ the record


def test_findings_are_sorted_by_severity_then_code_then_place() -> None:
    late = detached(site=Site("b.py", 9, 1))
    early = detached(site=Site("b.py", 3, 1))
    warning = detached(code="FXG101", severity="warning")
    nowhere = detached(site=None)
    report = Report(verdicts={}, findings=(warning, nowhere, late, early))
    assert report.findings == (early, late, nowhere, warning)


@pytest.mark.parametrize(("severity", "ok"), [("error", False), ("warning", True), ("note", True)])
def test_ok_is_no_error(severity: str, ok: bool) -> None:
    assert guilty(findings=(detached(severity=severity),)).ok is ok


@pytest.mark.parametrize(
    ("select", "ignore", "left"),
    [
        ((), (), ["FXG103", "FXG201", "FXG301"]),
        (("FXG1",), (), ["FXG103"]),
        (("FXG1", "FXG301"), (), ["FXG103", "FXG301"]),
        ((), ("FXG2",), ["FXG103", "FXG301"]),
        (("FXG103",), ("FXG1",), ["FXG103"]),
        (("FXG1",), ("FXG103",), []),
        (("FXG1",), ("FXG1",), []),
        (("FXG",), ("FXG1",), ["FXG201", "FXG301"]),
    ],
)
def test_selected_by_the_longer_prefix(select: tuple[str, ...], ignore: tuple[str, ...], left: list[str]) -> None:
    report = guilty(findings=tuple(detached(code=code) for code in ("FXG103", "FXG201", "FXG301")))
    got = report.selected(select, ignore)
    assert [finding.code for finding in got.findings] == left
    assert got.deselected == 3 - len(left)


def test_selected_decides_ok_and_keeps_verdicts() -> None:
    got = guilty().selected(ignore=("FXG103",))
    assert got.ok
    assert got.verdicts == VERDICTS


def test_selected_filters_notes_too() -> None:
    report = healthy(notes=(detached(code="FXG102", severity="note"), detached(severity="note")))
    assert [note.code for note in report.selected(ignore=("FXG102",)).notes] == ["FXG103"]


def test_a_report_keeps_its_own_verdicts() -> None:
    verdicts = dict(VERDICTS)
    report = Report(verdicts=verdicts, findings=())
    verdicts.clear()
    assert report.verdicts == VERDICTS


def test_a_report_survives_pickling() -> None:
    report = guilty(parameters=(fact("a.weight"),))
    assert pickle.loads(pickle.dumps(report)) == report


def test_str_is_the_table() -> None:
    assert str(guilty()) == guilty().render("table")


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_writes_a_healthy_and_a_guilty_report(format: str) -> None:
    assert "FXG103" in guilty().render(format) or format == "mermaid"
    assert "FXG103 detached-path" not in healthy().render(format)


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(FxgradError, match=r"no report format 'pdf' \(the formats are table, json, "):
        guilty().render("pdf")


# ------------------------------------------------------------------------------------------------------------ names

LAYERS = [f"layers.{i}.{part}.{kind}" for i in range(12) for part in ("attn", "ffn") for kind in ("weight", "bias")]
ALL = [*LAYERS, "embed.weight", "head.weight", "head.bias"]


def groups(names: list[str], universe: list[str]) -> list[str]:
    return [text(group) for group in grouped(names, universe)]


@pytest.mark.parametrize(
    ("wanted", "want"),
    [
        (ALL, ["* (51)"]),
        ([n for n in ALL if n.endswith("attn.bias")], ["layers.*.attn.bias (12)"]),
        ([n for n in ALL if n.startswith("head")], ["head.* (2)"]),
        (["head.bias"], ["head.bias"]),
        ([n for n in ALL if n.startswith("layers.3.")], ["layers.3.* (4)"]),
        ([n for n in ALL if n.split(".")[1] in "012345"], ["layers.[0-5].* (24)"]),
        ([n for n in ALL if n.split(".")[1] in "024"], ["layers.[024].* (12)"]),
        ([n for n in ALL if "attn.bias" in n and ".7." not in n], ["layers.[012345689].attn.bias (9)", "layers.1[01].attn.bias (2)"]),
        ([n for n in ALL if "head" not in n], ["layers.* (48)", "embed.weight"]),
    ],
)
def test_grouped(wanted: list[str], want: list[str]) -> None:
    assert groups(wanted, ALL) == want


def test_two_indices_at_once() -> None:
    names = [f"stages.{i}.blocks.{j}.{kind}" for i in range(3) for j in range(i + 1) for kind in ("norm", "bias", "gain")]
    assert groups([n for n in names if n.endswith("gain")], names) == ["stages.*.blocks.*.gain (6)"]


def test_a_star_never_reaches_into_another_module() -> None:
    # fnmatch's star crosses dots: `layers.*.bias` would match layers.0.sub.bias too.
    names = ["layers.0.bias", "layers.1.bias", "layers.0.sub.bias", "layers.0.weight"]
    assert groups(["layers.0.bias", "layers.1.bias"], names) == ["layers.[01].bias (2)"]


def test_names_with_glob_characters_are_shown_as_they_are() -> None:
    names = ["heads[a].0.weight", "heads[a].1.weight", "heads[a].0.bias", "heads[a].1.bias"]
    assert groups(names[:2], names) == names[:2]


part = st.sampled_from(["a", "b", "0", "1", "2", "10", "weight", "bias"])
name = st.lists(part, min_size=1, max_size=4).map(".".join)


@given(st.lists(name, unique=True, max_size=25), st.data())
def test_groups_hold_each_name_once_and_their_globs_match_nothing_else(universe: list[str], data: st.DataObject) -> None:
    wanted = [n for n in universe if data.draw(st.booleans())]
    got = grouped(wanted, universe)
    assert sorted(n for group in got for n in group.names) == sorted(wanted)
    for group in got:
        assert sorted(fnmatch.filter(universe, group.pattern)) == sorted(group.names)


def test_shown_says_how_many_are_left_out() -> None:
    assert (
        shown([n for n in ALL if n.endswith("weight")], ALL, limit=2) == "layers.*.attn.weight (12), layers.*.ffn.weight (12), and 2 more"
    )


def test_shown_lists_a_few_singly() -> None:
    assert shown(["head.weight", "head.bias"], ALL, limit=2) == "head.weight, head.bias"


# ------------------------------------------------------------------------------------------------------------ excerpts


def drawn(source: str, *span: int) -> list[str]:
    Path("drawn.py").write_text(source, encoding="utf-8")
    return list(excerpt(Site(os.path.abspath("drawn.py"), *span)))


@pytest.mark.parametrize(
    ("source", "span", "want"),
    [
        ("x = y.detach()\n", (1, 5, 1, 15), ["1 | x = y.detach()", "  |     ^^^^^^^^^^"]),
        ("\tx = y.detach()\n", (1, 6, 1, 16), ["1 |     x = y.detach()", "  |         ^^^^^^^^^^"]),
        ("x\t= y.detach()\n", (1, 5, 1, 15), ["1 | x   = y.detach()", "  |       ^^^^^^^^^^"]),
        ("名 = y.detach()\n", (1, 5, 1, 15), ["1 | 名 = y.detach()", "  |      ^^^^^^^^^^"]),
        ("y = 名.detach()\n", (1, 5, 1, 15), ["1 | y = 名.detach()", "  |     ^^^^^^^^^^^"]),
        ("e\u0301 = y.detach()\n", (1, 6, 1, 16), ["1 | e\u0301 = y.detach()", "  |     ^^^^^^^^^^"]),
        ("y = 1  # \x1b[31m\n", (1, 1, 1, 2), ["1 | y = 1  # ?[31m", "  | ^"]),
        ("x = 1\n", (1,), ["1 | x = 1"]),
        ("x = 1\n", (1, 3), ["1 | x = 1", "  |   ^"]),
        ("x = 1\n", (1, 5, 1, 99), ["1 | x = 1", "  |     ^"]),
        ("x = 1\n", (1, 50, 1, 99), ["1 | x = 1"]),
        ("x = 1\n", (7, 1, 7, 3), []),
        ("a = f(\n    b,\n\n)\n", (1, 5, 4, 2), ["1 | a = f(", "  |     ^^", "2 |     b,", "  |     ^^", "3 | ", "4 | )", "  | ^"]),
    ],
)
def test_excerpt(source: str, span: tuple[int, ...], want: list[str]) -> None:
    assert drawn(source, *span) == want


def test_numbers_line_up() -> None:
    assert drawn("\n" * 8 + "a = (\n1)\n", 9, 5, 10, 3) == [" 9 | a = (", "   |     ^", "10 | 1)", "   | ^^"]


def test_a_long_span_is_cut_with_a_note() -> None:
    got = drawn("f(\n" + "1,\n" * 8 + ")\n", 1, 1, 10, 2)
    assert len(got) == 9
    assert got[-1] == "  | ... to line 10"


def test_a_long_line_is_shown_around_its_span() -> None:
    source = "x = " + "a + " * 60 + "guilty + " + "b + " * 60 + "c\n"
    start = source.index("guilty") + 1
    line, carets = drawn(source, 1, start, 1, start + 6)
    assert line.startswith("1 | ... ")
    assert line.endswith(" ...")
    assert line[carets.index("^") : carets.rindex("^") + 1] == "guilty"


def test_a_long_line_with_an_early_span_is_cut_at_its_end_only() -> None:
    line, carets = drawn("guilty = " + "a + " * 60 + "b\n", 1, 1, 1, 7)
    assert line.startswith("1 | guilty = a")
    assert line.endswith(" ...")
    assert carets == "  | ^^^^^^"


def test_a_file_that_is_gone_has_no_excerpt() -> None:
    assert excerpt(Site("/nowhere/model.py", 3, 1, 3, 5)) == ()


@pytest.mark.parametrize("file", ["<stdin>", "<ipython-input-1-abc>", "/x.py"])
def test_short_path_keeps_what_is_shorter(file: str) -> None:
    assert short_path(file) == file


def test_place_is_relative_to_the_current_directory() -> None:
    assert place(detach_site()) == "model.py:7:13"
    assert place(Site(os.path.abspath("model.py"), 7)) == "model.py:7"


# ------------------------------------------------------------------------------------------------------------ table


def test_table_of_a_guilty_model() -> None:
    assert (
        guilty().render("table")
        == """\
Net: 4 parameters, 2 get no gradient, 1 error
on real values; loss: the output itself

parameter      count  gradient    because
-----------  -------  ----------  --------------------
a.weight           1  none        FXG103 model.py:7:13
a.bias             1  none        FXG103 model.py:7:13
head.weight        1  flows
head.bias          1  flows

model.py:7:13: FXG103 detached-path [error] `detach` cuts the only path
  7 |         h = self.a(x).detach()
    |             ^^^^^^^^^^^^^^^^^^
  path: loss <- head <- detach (model.py:7) <- a.weight
  starves: a.weight, a.bias
  help: drop the `detach`

Found 1 error and 0 warnings."""
    )


def test_table_of_a_healthy_model_is_short() -> None:
    assert (
        healthy().render("table")
        == """\
Net: 2 parameters, all get a gradient, no findings
on real values; loss: the output itself

OK: every parameter that asks for a gradient gets one."""
    )


def test_frozen_parameters_are_no_fault() -> None:
    report = healthy(verdicts={"a.weight": "none", "a.bias": "flows"}, parameters=(fact("a.weight", requires_grad=False), fact("a.bias")))
    got = report.render("table")
    assert got.startswith("Net: 2 parameters, 1 frozen, no findings\n")
    assert "a.weight           1  none        requires_grad=False" in got
    assert "a.bias" not in got
    assert got.endswith("OK: every parameter that asks for a gradient gets one.")


def test_a_starved_parameter_without_a_finding_is_not_called_ok() -> None:
    got = healthy(verdicts={"a.weight": "none"}).render("table")
    assert "1 gets no gradient" in got
    assert got.endswith("No findings.")


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("zero", "1 gets only zeros"),
        ("branch", "1 depends on a branch"),
        ("blocked", "1 blocked by an error"),
        ("none", "1 gets no gradient"),
    ],
)
def test_the_headline_counts_each_verdict(verdict: str, said: str) -> None:
    assert (
        healthy(verdicts={"a.weight": verdict, "b.weight": "flows"}).render("table").splitlines()[0]
        == f"Net: 2 parameters, {said}, no findings"
    )


def test_a_model_without_parameters() -> None:
    assert healthy(verdicts={}).render("table").splitlines()[0] == "Net: no parameters, no findings"


def test_tied_names_are_counted() -> None:
    report = healthy(parameters=(fact("a.weight", names=("a.weight", "a.bias")),))
    assert report.render("table").startswith("Net: 2 parameters (1 tied), ")


def test_many_parameters_are_grouped_and_the_rest_counted() -> None:
    verdicts = {f"block{c}.w{i}x": "none" if i % 2 else "flows" for c in "abcdefghijklmnop" for i in range(2)}
    finding = detached(tuple(n for n, v in verdicts.items() if v == "none"))
    lines = guilty(verdicts=verdicts, findings=(finding,)).render("table").splitlines()
    assert "... 4 more groups (-v)        4  none        FXG103 model.py:7:13" in lines
    assert "... 4 more groups (-v)        4  flows" in lines
    assert "  starves: blocka.w1x, blockb.w1x, blockc.w1x, blockd.w1x, blocke.w1x, blockf.w1x, and 10 more" in lines


def test_verbose_leaves_nothing_out() -> None:
    verdicts = {f"block{c}.w{i}x": "none" if i % 2 else "flows" for c in "abcdefghijklmnop" for i in range(2)}
    finding = detached(tuple(n for n, v in verdicts.items() if v == "none"))
    got = guilty(verdicts=verdicts, findings=(finding,)).render("table", verbose=True)
    assert "more" not in got
    assert all(name in got for name in verdicts)


def test_notes_are_counted_and_shown_when_verbose() -> None:
    report = healthy(notes=(detached(severity="note"),))
    assert report.render("table").endswith("1 note not shown (-v).")
    assert "model.py:7:13: FXG103 detached-path [note]" in report.render("table", verbose=True)
    assert "not shown" not in report.render("table", verbose=True)


def test_a_finding_without_a_line_names_the_model() -> None:
    got = guilty(findings=(detached(site=None, path=(), fix=None),)).render("table")
    assert "\nNet: FXG103 detached-path [error] `detach` cuts" in got


def test_an_edit_is_shown_and_counted() -> None:
    fix = Fix("drop it", "safe", (Edit(detach_site(), "self.a(x).detach()", "self.a(x)"),))
    got = guilty(findings=(detached(fix=fix),)).render("table")
    assert "  fix (safe) model.py:7:13: `self.a(x).detach()` -> `self.a(x)`" in got
    assert got.endswith("1 of 1 finding can be repaired by an edit shown above.")


def test_a_finding_about_parameters_that_do_train_does_not_say_starves() -> None:
    assert "  parameters: head.weight" in guilty(findings=(detached(("head.weight",)),)).render("table")


def test_what_was_left_out_by_selection_is_said() -> None:
    assert guilty().selected(ignore=("FXG103",)).render("table").endswith("1 left out by select and ignore.")


def test_assumptions_and_paths_are_said() -> None:
    got = healthy(assumptions=("x=2x3 was guessed",), paths=4, paths_cut_off=True).render("table")
    assert "assumed: x=2x3 was guessed" in got
    assert "4 outcomes of data-dependent branches" in got
    assert "the limit of 4 paths was reached" in got


def test_branches_are_listed_when_verbose() -> None:
    decision = Decision(Site(os.path.abspath("model.py"), 6, 5), "gt", True, False)
    report = healthy(decisions=(decision,))
    assert "branch at model.py:6:5: took True (explored)" in report.render("table", verbose=True)
    assert "branch at" not in report.render("table")


def blocked(**changes: Any) -> Report:
    error = Raised("backward", "RuntimeError", "modified by an inplace operation\nsecond line", detach_site())
    return healthy(**{"verdicts": {"a.weight": "blocked"}, "error": error, **changes})


def test_an_error_that_no_finding_explains_is_shown_with_its_line() -> None:
    got = blocked().render("table")
    assert "the backward pass raises RuntimeError at model.py:7:13: modified by an inplace operation (and 1 more line)" in got
    assert "  7 |         h = self.a(x).detach()" in got
    assert got.endswith("No finding explains the error.")


def test_a_blocked_parameter_without_a_finding_names_the_error() -> None:
    assert "a.weight           1  blocked     RuntimeError model.py:7:13" in blocked().render("table")


def test_the_whole_error_when_verbose() -> None:
    assert "inplace operation\n    second line" in blocked().render("table", verbose=True)


def test_an_explained_error_is_not_drawn_twice() -> None:
    got = blocked(findings=(detached(),)).render("table")
    assert got.count("7 |         h =") == 1


# ------------------------------------------------------------------------------------------------------------ json

SCHEMA = json.loads((Path(as_json.__file__).parent / "report.schema.json").read_text())


def everything() -> Report:
    """A report with something in every field."""
    fix = Fix("drop it", "safe", (Edit(detach_site(), "a", "b"),))
    return guilty(
        findings=(detached(fix=fix), detached(code="FXG501", severity="warning", site=None, path=(), fix=None)),
        notes=(detached(severity="note"),),
        parameters=(fact("a.weight"), fact("a.bias", requires_grad=False)),
        assumptions=("guessed",),
        decisions=(Decision(detach_site(), "gt", True, True), Decision(None, "le", False, False)),
        error=Raised("forward", "KeyError", "'x'", None, (detach_site(),)),
        values="fake",
        paths=3,
        paths_cut_off=True,
        nodes=7,
        deselected=2,
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("report", [guilty, healthy, blocked, everything], ids=lambda make: make.__name__)
def test_json_follows_its_schema(report: Any) -> None:
    jsonschema.validate(json.loads(report().render("json")), SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("key", "value"), [("schema_version", 2), ("verdicts", {"a": "maybe"}), ("values", "meta"), ("findings", [{}]), ("error", 1)]
)
def test_the_schema_refuses(key: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**everything().to_dict(), key: value}, SCHEMA)


def test_the_schema_names_every_key() -> None:
    got = replace(everything(), ranks=Ranks(2, {"a": {0: "flows", 1: "none"}})).to_dict()
    assert set(SCHEMA["properties"]) == set(got)
    assert set(SCHEMA["required"]) == set(everything().to_dict()) == set(got) - {"ranks"}
    for definition, part_of in (("finding", got["findings"][0]), ("parameter", got["parameters"][0]), ("raised", got["error"])):
        assert set(SCHEMA["$defs"][definition]["properties"]) == set(part_of)


def test_to_dict_is_plain_json() -> None:
    got = everything().to_dict()
    assert json.loads(json.dumps(got)) == got


def test_json_is_the_dict() -> None:
    assert json.loads(everything().render("json")) == everything().to_dict()


def test_json_has_every_note_whether_verbose_or_not() -> None:
    assert everything().render("json") == everything().render("json", verbose=True)
    assert len(everything().to_dict()["notes"]) == 1


def test_json_summary() -> None:
    got = everything().to_dict()["summary"]
    assert got == {
        "parameters": 4,
        "severities": {"error": 1, "note": 1, "warning": 1},
        "verdicts": {"flows": 2, "none": 2},
    }


# ------------------------------------------------------------------------------------------------------------ fingerprints


def test_a_fingerprint_does_not_change_when_lines_move(model_file: Path) -> None:
    before = fingerprints([detached()])
    model_file.write_text("# a new line\n" + SOURCE)
    moved = Site(str(model_file), 8, 13, 8, 31)
    assert fingerprints([detached(site=moved)]) == before


def test_a_fingerprint_changes_with_the_line_itself(model_file: Path) -> None:
    before = fingerprints([detached()])
    model_file.write_text(SOURCE.replace("self.a(x)", "self.a(x * 2)"))
    assert fingerprints([detached()]) != before


@pytest.mark.parametrize("other", [{"code": "FXG104"}, {"parameters": ("a.bias",)}, {"site": None}])
def test_a_fingerprint_changes_with(other: dict[str, Any]) -> None:
    assert fingerprints([detached()]) != fingerprints([detached(**other)])


def test_equal_findings_have_different_fingerprints() -> None:
    first, second = fingerprints([detached(), detached()])
    assert second == f"{first}-2"


# ------------------------------------------------------------------------------------------------------------ github


def test_github_annotation() -> None:
    assert guilty().render("github") == (
        "::error file=model.py,line=7,endLine=7,col=13,endColumn=31,title=FXG103 detached-path::"
        "`detach` cuts the only path%0Aparameters: a.weight, a.bias%0A"
        "path: loss <- head <- detach (model.py:7) <- a.weight%0Ahelp: drop the `detach`"
    )


def test_github_escapes() -> None:
    Path("a,b:c%").mkdir()
    site = Site(os.path.abspath("a,b:c%/model.py"), 1, 1, 1, 2)
    finding = detached(site=site, message="100% sure,\r\nand: so", parameters=(), path=(), fix=None)
    assert Report({}, (finding,)).render("github") == (
        "::error file=a%2Cb%3Ac%25/model.py,line=1,endLine=1,col=1,endColumn=2,title=FXG103 detached-path::100%25 sure,%0Aand: so"
    )


@pytest.mark.parametrize(
    ("site", "want"),
    [
        (None, "::error title="),
        (Site("/m.py", 3), "::error file=/m.py,line=3,title="),
        (Site("/m.py", 3, 5, 6, 2), "::error file=/m.py,line=3,endLine=6,title="),
    ],
)
def test_github_span(site: Site | None, want: str) -> None:
    assert guilty(findings=(detached(site=site),)).render("github").startswith(want)


@pytest.mark.parametrize(("severity", "command"), [("error", "error"), ("warning", "warning"), ("note", "notice")])
def test_github_command(severity: str, command: str) -> None:
    assert guilty(findings=(detached(severity=severity),)).render("github").startswith(f"::{command} ")


def test_github_is_empty_for_a_healthy_model() -> None:
    assert healthy(notes=(detached(severity="note"),)).render("github") == ""


def test_github_shows_notes_when_verbose() -> None:
    assert healthy(notes=(detached(severity="note"),)).render("github", verbose=True).startswith("::notice ")


def test_github_shows_an_unexplained_error() -> None:
    assert (
        blocked().render("github").startswith("::error file=model.py,line=7,endLine=7,col=13,endColumn=31,title=Net raises::the backward")
    )


# ------------------------------------------------------------------------------------------------------------ sarif


def sarif(report: Report, **options: Any) -> dict[str, Any]:
    log = json.loads(report.render("sarif", **options))
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    run: dict[str, Any] = log["runs"][0]
    return run


def test_sarif_result() -> None:
    (result,) = sarif(guilty())["results"]
    assert (result["ruleId"], result["level"]) == ("FXG103", "error")
    assert result["message"] == {"text": "`detach` cuts the only path\nParameters: a.weight, a.bias.\nHelp: drop the `detach`."}
    physical = result["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"] == {"uri": "model.py", "uriBaseId": "%SRCROOT%"}
    assert physical["region"] == {"startLine": 7, "startColumn": 13, "endLine": 7, "endColumn": 31}
    assert result["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": "Net.forward", "kind": "function"}]
    assert result["partialFingerprints"]["fxgrad/v1"] == fingerprints([detached()])[0]
    assert "fixes" not in result


def test_sarif_rules_are_those_registered_and_results_point_at_them() -> None:
    run = sarif(guilty(findings=(detached(), detached(code="FXG999", name="made-up"))))
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [*(module.CODE for module in RULES), "FXG999"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == ["FXG103", "FXG999"]


def test_sarif_rules_have_texts() -> None:
    for rule in sarif(healthy())["tool"]["driver"]["rules"]:
        assert rule["shortDescription"]["text"]
        assert " ".join(rule["help"]["text"].split()).startswith(rule["shortDescription"]["text"])
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert rule["name"].isidentifier()


def test_sarif_root_is_a_uri_that_ends_in_a_slash() -> None:
    root = sarif(healthy())["originalUriBaseIds"]["%SRCROOT%"]["uri"]
    assert root == f"{Path.cwd().as_uri()}/"


@pytest.mark.parametrize(
    ("file", "want"),
    [
        ("sub dir/näme.py", {"uri": "sub%20dir/n%C3%A4me.py", "uriBaseId": "%SRCROOT%"}),
        ("/elsewhere/m.py", {"uri": "file:///elsewhere/m.py"}),
        ("<stdin>", {"uri": "%3Cstdin%3E"}),
    ],
)
def test_sarif_files(file: str, want: dict[str, str]) -> None:
    site = Site(file if file[0] in "/<" else os.path.abspath(file), 1)
    (result,) = sarif(guilty(findings=(detached(site=site, path=()),)))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == want


@pytest.mark.parametrize(
    ("span", "want"),
    [
        ((3,), {"startLine": 3}),
        ((3, 5), {"startLine": 3, "startColumn": 5}),
        ((3, 5, 4, 2), {"startLine": 3, "startColumn": 5, "endLine": 4, "endColumn": 2}),
    ],
)
def test_sarif_region(span: tuple[int, ...], want: dict[str, int]) -> None:
    (result,) = sarif(guilty(findings=(detached(site=Site("/m.py", *span), path=()),)))["results"]
    assert result["locations"][0]["physicalLocation"]["region"] == want


def test_sarif_columns_are_characters() -> None:
    assert sarif(guilty())["columnKind"] == "unicodeCodePoints"


def test_sarif_path_is_a_code_flow() -> None:
    (result,) = sarif(guilty())["results"]
    (location,) = result["codeFlows"][0]["threadFlows"][0]["locations"]
    assert location["location"]["message"] == {"text": "detach"}
    assert location["location"]["physicalLocation"]["region"]["startLine"] == 7


def test_sarif_fix_replaces_the_span() -> None:
    fix = Fix("drop it", "safe", (Edit(detach_site(), "self.a(x).detach()", "self.a(x)"),))
    (result,) = sarif(guilty(findings=(detached(fix=fix),)))["results"]
    assert result["fixes"] == [
        {
            "description": {"text": "drop it (safe)"},
            "artifactChanges": [
                {
                    "artifactLocation": {"uri": "model.py", "uriBaseId": "%SRCROOT%"},
                    "replacements": [
                        {
                            "deletedRegion": {"startLine": 7, "startColumn": 13, "endLine": 7, "endColumn": 31},
                            "insertedContent": {"text": "self.a(x)"},
                        }
                    ],
                }
            ],
        }
    ]


def test_sarif_has_notes_when_verbose() -> None:
    report = healthy(notes=(detached(severity="note"),))
    assert sarif(report)["results"] == []
    assert [result["level"] for result in sarif(report, verbose=True)["results"]] == ["note"]


def test_sarif_of_an_unexplained_error_is_a_failed_run() -> None:
    (invocation,) = sarif(blocked())["invocations"]
    assert invocation["executionSuccessful"] is False
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["level"] == "error"
    assert "modified by an inplace operation" in notification["message"]["text"]
