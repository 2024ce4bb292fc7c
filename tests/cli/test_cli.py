"""The command line: what goes to stdout and stderr, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fxgrad
from fxgrad import cli
from fxgrad.cli.main import COMMANDS
from fxgrad.passes import RULES
from fxgrad.records import Finding, Inputs, Options, Raised, Site
from fxgrad.records.errors import FxgradError, TraceError
from fxgrad.report import FORMATS, Report

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        h = self.a(x).detach()
        return self.head(h)
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line beside `model.py`: its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)

    def run_line(*argv: str) -> tuple[int, str, str]:
        status = cli.main(argv)
        out, err = capsys.readouterr()
        return status, out, err

    return run_line


class Analysis:
    """Stands for `fxgrad.diagnosis.analyze.analyze`: keeps what it was called with and gives a report, or raises."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.raises: BaseException | None = None
        self.model: Any = None
        self.inputs: Any = None
        self.options: dict[str, Any] = {}
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def seen(self) -> list[tuple[list[list[int]], str, str | None]]:
        """Of each call the shapes of the inputs by name, the kind of values, and the loss."""
        return [
            (
                [list(tensor.shape) for tensor in inputs.kwargs.values()],
                options["options"].values,
                getattr(options["loss"], "__name__", None),
            )
            for inputs, options in self.calls
        ]

    def __call__(self, model: Any, inputs: Any, **options: Any) -> Report:
        self.model, self.inputs, self.options = model, inputs, options
        self.calls.append((inputs, options))
        if self.raises is not None:
            raise self.raises
        return self.report


def finding(code: str, severity: Any = "error") -> Finding:
    return Finding(code, "bad-pattern", severity, f"message of {code}", Site("model.py", 12, 13, 12, 31), ("a.weight",))


@pytest.fixture
def analysis(monkeypatch: pytest.MonkeyPatch) -> Analysis:
    report = Report({"a.weight": "none", "head.weight": "flows"}, (finding("FXG103"),), notes=(finding("FXG102", "note"),), model="Net")
    stub = Analysis(report)
    monkeypatch.setattr("fxgrad.diagnosis.analyze.analyze", stub)
    return stub


def one_error_line(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("fxgrad: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("fxgrad: error: ").rstrip("\n")


# ------------------------------------------------------------------------------------------------------------ end to end


def test_a_guilty_model_is_reported_with_its_line(run: Run) -> None:
    status, out, err = run("report", "model.py", "--input", "x=2x4")
    assert status == 1
    assert "model.py:12:13: FXG103 detached-path [error]" in out
    assert "            ^^^^^^^^^^^^^^^^^^" in out
    assert err == ""


def test_a_healthy_model_exits_with_0(run: Run) -> None:
    Path("model.py").write_text(MODEL.replace(".detach()", ""))
    status, out, _ = run("report", "model.py")
    assert status == 0
    assert "all get a gradient" in out


def test_inferred_inputs_are_said(run: Run) -> None:
    _, out, _ = run("report", "model.py")
    assert "assumed: no name was given: the model is `Net()` in model.py\n" in out
    assert "assumed: --input x=2x4:float32 (`linear` takes 4 features)\n" in out


def test_what_the_model_prints_is_not_in_the_report(run: Run) -> None:
    Path("model.py").write_text("print('loading')\n" + MODEL.replace("h = ", "print('forward'); h = "))
    _, out, err = run("report", "model.py", "--format", "json")
    assert json.loads(out)["model"] == "Net"
    assert "loading" in err
    assert "forward" in err


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format(run: Run, format: str) -> None:
    status, out, _ = run("report", "model.py", "--format", format)
    assert status == 1
    assert out.endswith("\n")


def test_a_part_of_the_output_as_loss(run: Run) -> None:
    Path("model.py").write_text(MODEL.replace("return self.head(h)", "return {'out': self.head(h), 'fine': self.head(self.a(x))}"))
    assert run("report", "model.py", "--loss", '["out"]')[0] == 1
    assert run("report", "model.py", "--loss", '["fine"]')[0] == 0


# ------------------------------------------------------------------------------------------------------------ what is passed on


def test_the_file_and_the_options_reach_the_analysis(run: Run, analysis: Analysis) -> None:
    Path("model.py").write_text(
        MODEL + "\n\nnet = Net()\nexample_inputs = (torch.ones(5, 4),)\nexpect = ['head.*']\n"
        "def loss(output): return output.sum()\noptimizer = torch.optim.SGD(net.parameters(), 0.1)\n"
    )
    run("report", "model.py:net", "--max-paths", "3", "--values", "fake")
    assert type(analysis.model).__name__ == "Net"
    assert analysis.inputs.args[0].shape == (5, 4)
    assert analysis.options["loss"].__name__ == "loss"
    assert type(analysis.options["optimizer"]).__name__ == "SGD"
    assert analysis.options["expect"] == ("head.*",)
    assert analysis.options["options"] == Options(max_paths=3, values="fake")


def test_written_inputs_win_over_those_of_the_file(run: Run, analysis: Analysis) -> None:
    Path("model.py").write_text(MODEL + "\n\nexample_inputs = (torch.ones(5, 4),)\n")
    run("report", "model.py", "--input", "x=7x4")
    assert isinstance(analysis.inputs, Inputs)
    assert analysis.inputs.kwargs["x"].shape == (7, 4)


def test_inputs_that_were_not_written_are_inferred(run: Run, analysis: Analysis) -> None:
    Path("model.py").write_text(MODEL.replace("forward(self, x)", "forward(self, x, t)"))
    _, out, _ = run("report", "model.py", "--input", "x=2x4")
    assert analysis.inputs.args[0].shape == (2, 4)
    assert len(analysis.inputs.args) == 2
    assert "assumed: --input t=" in out
    assert "--input x=" not in out


def test_expect_and_loss_win_over_those_of_the_file(run: Run, analysis: Analysis) -> None:
    Path("model.py").write_text(MODEL + "\n\nexpect = ['head.*']\ndef loss(output): return output.sum()\ndef other(output): return 1\n")
    run("report", "model.py", "--expect", "a.*", "--expect", "b", "--loss", "model.py:other")
    assert analysis.options["expect"] == ("a.*", "b")
    assert analysis.options["loss"].__name__ == "other"


# ------------------------------------------------------------------------------------------------------------ the exit status


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 1),
        (("--exit-zero",), 0),
        (("--ignore", "FXG1"), 0),
        (("--ignore", "FXG2,FXG3"), 1),
        (("--select", "FXG2"), 0),
        (("--select", "fxg103, FXG2"), 1),
        (("--select", "FXG103", "--ignore", "FXG1"), 1),
    ],
)
def test_exit_status_after_selection(run: Run, analysis: Analysis, arguments: tuple[str, ...], status: int) -> None:
    assert run("report", "model.py", *arguments)[0] == status


def test_a_warning_is_no_error(run: Run, analysis: Analysis) -> None:
    analysis.report = Report({"a.weight": "none"}, (finding("FXG103", "warning"),))
    assert run("report", "model.py")[0] == 0


def test_an_error_of_the_program_that_nothing_explains_is_not_clean(run: Run, analysis: Analysis) -> None:
    error = Raised("backward", "RuntimeError", "something", Site(os.path.abspath("model.py"), 12, 13))
    analysis.report = Report({"a.weight": "blocked"}, (), error=error)
    status, out, err = run("report", "model.py")
    assert status == 2
    assert "No finding explains the error." in out
    assert err.startswith("fxgrad: error: the backward pass raises RuntimeError at model.py:12:13: something (")


def test_an_explained_error_that_is_ignored_is_clean(run: Run, analysis: Analysis) -> None:
    error = Raised("backward", "RuntimeError", "something", None)
    analysis.report = Report({"a.weight": "blocked"}, (finding("FXG201"),), error=error)
    assert run("report", "model.py")[0] == 1
    assert run("report", "model.py", "--ignore", "FXG201")[0] == 0


def test_verbose_shows_the_notes(run: Run, analysis: Analysis) -> None:
    assert "FXG102" not in run("report", "model.py")[1].replace("FXG102 model.py", "")
    assert "FXG102 bad-pattern [note]" in run("report", "model.py", "-v")[1]


# ------------------------------------------------------------------------------------------------------------ files


def test_output_goes_to_a_file(run: Run, analysis: Analysis) -> None:
    status, out, err = run("report", "model.py", "-o", "report.json", "--format", "json")
    assert (status, out, err) == (1, "", "fxgrad: report.json written\n")
    assert json.loads(Path("report.json").read_text())["schema_version"] == 1


def test_output_that_cannot_be_written(run: Run, analysis: Analysis) -> None:
    assert one_error_line(run("report", "model.py", "-o", "no/such/file")).startswith("no/such/file cannot be written: No such file")


def test_a_baseline_lets_known_findings_pass(run: Run, analysis: Analysis) -> None:
    assert run("report", "model.py", "--baseline", "known.json", "--update-baseline")[0] == 0
    assert run("report", "model.py", "--baseline", "known.json")[0] == 0
    analysis.report = Report(analysis.report.verdicts, (finding("FXG103"), finding("FXG104")))
    assert run("report", "model.py", "--baseline", "known.json")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--baseline", "missing.json"), "the baseline missing.json cannot be read"),
        (("--baseline", "model.py"), "model.py is no fxgrad baseline"),
        (("--baseline", "deep.json"), "deep.json is no fxgrad baseline"),
        (("--baseline", "list.json"), "list.json is no fxgrad baseline"),
        (("--baseline", "text.json"), "text.json is no fxgrad baseline"),
        (("--update-baseline",), "--update-baseline needs a file (add --baseline FILE)"),
    ],
)
def test_a_baseline_that_cannot_be_used(run: Run, analysis: Analysis, arguments: tuple[str, ...], reason: str) -> None:
    Path("deep.json").write_text('{"findings": ' + "[" * 100_000)
    Path("list.json").write_text("[]")
    Path("text.json").write_text('{"findings": "FXG103"}')
    assert one_error_line(run("report", "model.py", *arguments)).startswith(reason)


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fly",), "argument COMMAND: invalid choice: 'fly' (choose from report, fix"),
        (("repport", "model.py"), "argument COMMAND: invalid choice: 'repport' (did you mean report?)"),
        (("report", "--fromat", "json", "model.py"), "unrecognized arguments: --fromat (did you mean --format?)"),
        (("fix", "model.py", "other.py"), "unrecognized arguments: other.py (see `fxgrad fix --help`)"),
        (("report", "model.py", "--format", "jsn"), "argument --format: invalid choice: 'jsn' (did you mean json?)"),
        (("report", "model.py", "--format", "html", "model.py"), "--format html holds one report (give one MODEL, or one of table, json"),
        (("report",), "the following arguments are required: MODEL (see `fxgrad report --help`)"),
        (("report", "model.py", "--fast"), "unrecognized arguments: --fast"),
        (("report", "model.py", "--format", "pdf"), "argument --format: invalid choice: 'pdf'"),
        (("report", "model.py", "--max-paths", "0"), "argument --max-paths: 0 is less than 1"),
        (("report", "model.py", "--max-paths", "many"), "argument --max-paths: invalid positive value: 'many'"),
        (("report", "model.py", "--values", "dry"), "argument --values: invalid choice: 'dry'"),
        (("report", "nowhere.py"), "there is no file nowhere.py (MODEL is path/to/file.py"),
        (("report", "model.py:Nett"), "model.py has no `Nett` (did you mean `Net`?)"),
        (("report", "model.py", "--input", "x=2x"), "cannot read the input 'x=2x' (write it like x=2x3x224x224:float32"),
        (
            ("report", "model.py", "--input", "y=2x4"),
            "the inputs do not fit the model: got an unexpected keyword argument 'y' (forward takes x)",
        ),
        (("report", "model.py", "--loss", "total"), "no loss can be made from 'total'"),
        (("report", "model.py", "--select", "XYZ"), "there is no rule XYZ (`fxgrad rules` lists them)"),
        (("report", "model.py", "--ignore", "FXG1,FXG9"), "there is no rule FXG9"),
        (("explain", "FXG999"), "there is no rule FXG999"),
        (("explain", "detatched-path"), "there is no rule detatched-path (did you mean detached-path?)"),
    ],
)
def test_an_error_is_one_line(run: Run, arguments: tuple[str, ...], line: str) -> None:
    assert one_error_line(run(*arguments)).startswith(line)


def test_an_error_has_its_place(run: Run) -> None:
    Path("model.py").write_text("x = 1\nx.y\n")
    got = one_error_line(run("report", "model.py"))
    assert got.startswith("model.py:2:1: running model.py raises AttributeError: 'int' object has no attribute 'y' (")


def test_wrong_inputs_are_an_error_at_their_line(run: Run) -> None:
    got = one_error_line(run("report", "model.py", "--input", "x=2x5"))
    assert got.startswith("model.py:12:13: ")
    assert "mat1 and mat2 shapes cannot be multiplied (2x5 and 4x8)" in got


def test_a_pickle_needs_trust(run: Run) -> None:
    Path("net.pth").write_bytes(b"")
    assert one_error_line(run("report", "net.pth")) == (
        "net.pth is a pickle, and loading one runs the code in it (pass --trust-pickle if you trust its origin)"
    )


@pytest.mark.parametrize("error", [FxgradError("reason\nin two lines", hint="hint"), TraceError("reason in two lines", hint="hint")])
def test_a_reason_of_several_lines_becomes_one(run: Run, analysis: Analysis, error: FxgradError) -> None:
    analysis.raises = error
    assert one_error_line(run("report", "model.py")) == "reason in two lines (hint)"


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("too\ndeep"), SystemExit(3)])
def test_an_unforeseen_error_is_one_line_too(run: Run, analysis: Analysis, error: BaseException) -> None:
    analysis.raises = error
    got = one_error_line(run("report", "model.py"))
    assert got.startswith(type(error).__name__)
    assert "--traceback" in got


def test_traceback_shows_the_users_line(run: Run) -> None:
    Path("model.py").write_text("def f():\n    return 1 / 0\n\n\nf()\n")
    status, out, err = run("report", "model.py", "--traceback")
    assert (status, out) == (2, "")
    assert "    return 1 / 0" in err
    assert err.splitlines()[-1].startswith("fxgrad: error: model.py:2:12: running model.py raises ZeroDivisionError")


WITH_OPTIONS = """\
import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, required=True)
net = nn.Linear(parser.parse_args().width, 2)
"""

FLAG = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width, stop_early: bool, mode="plain"):
        super().__init__()
        self.a, self.b, self.stop_early = nn.Linear(width, width), nn.Linear(width, 2), stop_early

    def forward(self, x):
        x = self.a(x)
        return self.b(x.detach() if self.stop_early else x)
"""

ATTENTION = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        q, k = (layer(x).view(x.size(0), -1, 6) for layer in (self.q, self.k))
        return (q @ k.transpose(1, 2)).softmax(-1) @ k
"""

ON_CUDA = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        scale = torch.ones(4, device="cuda:0")
        return self.b((self.a(x.cuda()) * scale).detach())
"""


def test_what_follows_two_dashes_is_for_the_models_file(run: Run) -> None:
    Path("model.py").write_text(WITH_OPTIONS)
    assert run("report", "model.py")[0] == 2
    assert run("report", "model.py", "--ignore", "FXG3", "--", "--width", "7")[0] == 0


def test_a_verdict_that_hangs_on_a_guess_is_none(run: Run) -> None:
    Path("model.py").write_text(FLAG)
    status, out, err = run("report", "model.py")
    assert (status, out) == (2, "")
    assert "the verdict hangs on a guess: stop_early=True gives FXG103, stop_early=False gives no finding" in err
    assert "(write --arg stop_early=True or --arg stop_early=False)" in err
    assert [run("report", "model.py", "--arg", f"stop_early={value}")[0] for value in (True, False)] == [1, 0]


SHORTENED = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.score, self.mix = nn.Embedding(50, 8), nn.Linear(8, 1), nn.Linear(8, 8)

    def forward(self, tokens):
        hidden = self.emb(tokens)[:, ::16]
        weighed = (self.score(hidden).softmax(1) * hidden).sum(1)
        for start in range(1, hidden.shape[1]):
            weighed = weighed + self.mix(hidden[:, start])
        return weighed
"""
SINGLE = SHORTENED.replace("softmax(1)", "softmax(2)")


def test_a_guessed_length_of_which_one_element_is_left_is_tried_longer(run: Run) -> None:
    Path("model.py").write_text(SHORTENED)
    status, out, _ = run("report", "model.py")
    assert (status, "FXG" in out) == (0, False), out
    assert "--input tokens=2x128:int64[0,50) (by the name `tokens`, larger than the first that ran" in out


def test_a_given_length_of_which_one_element_is_left_is_believed(run: Run) -> None:
    Path("model.py").write_text(SHORTENED)
    status, out, _ = run("report", "model.py", "--input", "tokens=2x16:int64[0,50)")
    assert status == 1
    assert "FXG401" in out
    assert "`mix` is never called" in out


def test_a_softmax_over_one_score_stays_a_finding_of_any_length(run: Run) -> None:
    Path("model.py").write_text(SINGLE)
    status, out, _ = run("report", "model.py")
    assert status == 1
    assert "normalises over a single element" in out
    assert "FXG101" not in out


PART = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, nn.Linear(64, 2)

    def forward(self, x):
        return self.head(self.body.{asks}(x))

    def act(self, x):
        return self.head(x)
"""


def test_what_a_guessed_part_does_not_have_is_no_mistake_of_the_program(run: Run) -> None:
    Path("model.py").write_text(PART.format(asks="encode"))
    status, out, err = run("report", "model.py")
    assert (status, out) == (2, "")
    assert "the argument `body=nn.Linear(64, 64)` is a guess that does not fit: 'Linear' object has no attribute 'encode'" in err
    assert "(write --arg body=..., or" in err
    Path("model.py").write_text(PART.format(asks="forward"))
    assert run("report", "model.py")[0] == 0


def test_what_the_program_misspells_itself_is_its_mistake(run: Run) -> None:
    Path("model.py").write_text(PART.format(asks="forward").replace("self.head(self.body", "self.heed(self.body"))
    status, out, _ = run("report", "model.py")
    assert status == 1
    assert "FXG002" in out


def test_a_forward_that_nobody_wrote_is_not_asked(run: Run) -> None:
    text = PART.format(asks="forward").replace("return self.head(self.body.forward(x))", "raise NotImplementedError")
    Path("model.py").write_text(text)
    status, out, err = run("report", "model.py")
    assert (status, out) == (2, "")
    assert "model.py:12:9: `Net.forward` raises NotImplementedError: the model is not used by calling it" in err


PENALTY = """
import torch

class Penalty(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
    def forward(self, x, score):
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return self.weight * slope.norm()
"""


def test_a_guessed_input_that_is_differentiated_is_no_mistake_of_the_model(run: Run) -> None:
    Path("model.py").write_text(PENALTY)
    status, out, err = run("report", "model.py")
    assert (status, out) == (2, "")
    assert "model.py:9:20: `Penalty.forward` differentiates what it is given" in err
    status, out, err = run("report", "model.py", "--input", "x=3x2", "--input", "score=3")
    assert status == 1, err  # so it was asked for
    assert "model.py:9:40: FXG116" in out


def test_guesses_of_which_nothing_is_left_before_a_layer_end_in_a_refusal(run: Run) -> None:
    Path("model.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = torch.nn.Linear(8, 2)\n"
        "    def forward(self, x):\n        return self.layer(x[..., :0])\n"
    )
    status, _, err = run("report", "model.py")
    assert status == 2
    assert "no guess for the input `x`" in err


@pytest.mark.parametrize("arguments", ["", ", width: int"])
def test_a_derivative_that_torch_lacks_is_no_forward_that_nobody_wrote(run: Run, arguments: str) -> None:
    Path("model.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n"
        f"    def __init__(self{arguments}):\n        super().__init__()\n"
        f"        self.layer = torch.nn.Linear({'width' if arguments else 3}, 3)\n"
        "    def forward(self, x):\n        h = self.layer(x).exp()\n        z = torch.special.zeta(h + 1, h)\n"
        "        return torch.autograd.grad(z.sum(), h)[0].sum()\n"
    )
    status, out, _ = run("report", "model.py", *(() if arguments else ("--input", "x=4x3")))
    assert status == 1
    assert "model.py:9:13: FXG105" in out


def test_a_finding_on_guessed_rows_must_hold_for_sequences(run: Run) -> None:
    Path("model.py").write_text(ATTENTION)
    status, out, err = run("report", "model.py")
    assert (status, out) == (2, "")
    assert "x=2x6:float32 gives FXG401, x=2x16x6:float32 gives no finding" in err
    assert run("report", "model.py", "--input", "2x16x6")[0] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize("more", ["", "\n\nexample_inputs = (torch.ones(2, 4),)\n", "\n\nnet = Net().cuda()\n"])
def test_a_program_for_cuda_is_analysed_without(run: Run, more: str) -> None:
    Path("model.py").write_text(ON_CUDA + more)
    status, out, _ = run("report", "model.py")
    assert status == 1
    assert "assumed: there is no CUDA here: what the program puts on `cuda` stays on the CPU (model.py:" in out
    assert "FXG103 model.py:12" in out


def test_an_interrupt_ends_quietly(run: Run, analysis: Analysis) -> None:
    analysis.raises = KeyboardInterrupt()
    assert run("report", "model.py") == (130, "", "fxgrad: interrupted\n")


def test_the_system_is_as_before(run: Run, analysis: Analysis) -> None:
    before = (sys.path[:], sys.argv[:], sys.stdout)
    run("report", "model.py")
    assert (sys.path, sys.argv, sys.stdout) == before


# ------------------------------------------------------------------------------------------------------------ rules and help


def test_rules_lists_every_rule(run: Run) -> None:
    status, out, err = run("rules")
    assert (status, err) == (0, "")
    for rule in RULES:
        assert any(line.split()[:3] == [rule.CODE, rule.NAME, rule.SEVERITY] for line in out.splitlines())


@pytest.mark.parametrize("name", ["FXG103", "fxg103", "detached-path"])
def test_explain_prints_the_documentation(run: Run, name: str) -> None:
    status, out, err = run("explain", name)
    assert (status, err) == (0, "")
    assert out.startswith("FXG103 detached-path (error)\n\n")
    for heading in ("What it finds", "Why it matters", "Example", "Instead", "When the fix is safe", "Not handled"):
        assert f"\n{heading}\n" in out


def test_version(run: Run) -> None:
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith(f"fxgrad {fxgrad.__version__} (torch ")


@pytest.mark.parametrize(
    "command", [(), *((command.name,) for command in COMMANDS)], ids=lambda command: command[0] if command else "fxgrad"
)
def test_help_has_examples(run: Run, command: tuple[str, ...]) -> None:
    status, out, err = run(*command, "--help")
    assert (status, err) == (0, "")
    assert "example" in out
    assert f"  fxgrad {' '.join(command)}" in out


def test_help_of_report_explains_every_exit_status(run: Run) -> None:
    assert "0 no error-level finding, 1 there are some, 2 could not run" in run("report", "--help")[1]


# ------------------------------------------------------------------------------------------------------------ without a command


@pytest.mark.parametrize("argv", [("model.py",), ("model.py:Net",), ("-q", "model.py"), ("--format", "concise", "./model.py"), ("model",)])
def test_a_model_alone_is_reported(run: Run, analysis: Analysis, argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    status, out, err = run(*argv)
    if argv == ("model",):
        assert "model_type" in err
        return
    assert (status, out, err) == run("report", *argv)
    assert "FXG103" in out


def test_nothing_is_help(run: Run) -> None:
    assert run() == run("--help")


# ------------------------------------------------------------------------------------------------------------ several models


def healthy(name: str) -> None:
    Path(name).write_text(MODEL.replace(".detach()", ""))


@pytest.mark.parametrize(
    "argv", [("good.py", "model.py"), ("good.py", "--input", "x=2x4", "model.py"), ("--input", "x=2x4", "good.py", "model.py")]
)
def test_several_models_are_reported_one_below_the_other(run: Run, argv: tuple[str, ...]) -> None:
    healthy("good.py")
    status, out, _ = run("report", *argv)
    assert status == 1
    first, second = out.split("\n\nNet: 4 parameters, 2 get no gradient")
    assert first.startswith("Net: 4 parameters, all get a gradient")
    assert "FXG103 model.py" in second


def test_several_models_in_formats_of_data(run: Run) -> None:
    healthy("good.py")
    assert [held["ok"] for held in json.loads(run("report", "good.py", "model.py", "--format", "json")[1])] == [True, False]
    Path("other.py").write_text(MODEL)
    (held,) = json.loads(run("report", "other.py", "good.py", "model.py", "--format", "sarif")[1])["runs"]
    files = [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in held["results"]]
    assert files == ["other.py", "model.py"]
    issues = json.loads(run("report", "other.py", "model.py", "--format", "gitlab")[1])
    assert [issue["location"]["path"] for issue in issues] == ["other.py", "model.py"]


def test_a_model_that_cannot_be_analysed_hides_no_other(run: Run) -> None:
    status, out, err = run("report", "nowhere.py", "model.py")
    assert status == 2
    assert err.startswith("fxgrad: error: nowhere.py: there is no file nowhere.py")
    assert "FXG103 model.py" in out


def test_one_baseline_for_several_models(run: Run) -> None:
    Path("other.py").write_text(MODEL.replace("Net", "Other"))
    assert run("report", "model.py", "other.py", "--baseline", "known.json", "--update-baseline")[0] == 0
    assert run("report", "model.py", "other.py", "--baseline", "known.json")[0] == 0
    Path("other.py").write_text(MODEL.replace("self.a(x).detach()", "self.a(x).data"))
    assert run("report", "model.py", "other.py", "--baseline", "known.json")[0] == 1


def test_statistics_count_over_all_models(run: Run) -> None:
    Path("other.py").write_text(MODEL.replace("Net", "Other"))
    status, out, _ = run("report", "model.py", "other.py", "--statistics", "--select", "FXG1")
    assert status == 1
    assert [line.split() for line in out.splitlines()[2:]] == [["2", "4", "FXG103", "detached-path"]]
    _, out, _ = run("report", "model.py", "--statistics", "--select", "FXG1", "--format", "json")
    assert json.loads(out) == [{"findings": 1, "parameters": 2, "code": "FXG103", "name": "detached-path"}]
    healthy("model.py")
    assert run("report", "model.py", "--statistics")[:2] == (0, "No findings.\n")


def test_quiet_leaves_the_findings(run: Run) -> None:
    status, out, err = run("report", "model.py", "-q")
    assert (status, err) == (1, "")
    assert out.startswith("model.py:12:13: FXG103 detached-path [error]")
    assert out.rstrip().splitlines()[-1].startswith("  help: ")
    assert run("report", "model.py", "-q", "-o", "report.txt") == (1, "", "")
    healthy("model.py")
    assert run("report", "model.py", "-q") == (0, "", "")
    assert run("report", "nowhere.py", "-q")[2].startswith("fxgrad: error: there is no file nowhere.py")


# ------------------------------------------------------------------------------------------------------------ the project's models


def project(text: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.fxgrad]\n{text}\n")


TWO_INPUTS = MODEL.replace("forward(self, x)", "forward(self, x, y)").replace("self.a(x)", "self.a(x + y)")


def test_the_projects_models_are_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("src/good.py", "src/base.py", "src/deep/bad.py"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        healthy(name)
    Path("src/deep/bad.py").write_text(MODEL)
    project('models = ["src/*.py", "src/deep/bad.py:Net"]\nexclude = ["src/b*.py"]')
    status, out, err = run()
    assert (status, err) == (1, "")
    assert out.count("Net: 4 parameters") == 2
    assert run("report") == (status, out, err)
    assert run("-q") == run("report", "src/good.py", "src/deep/bad.py", "-q")
    monkeypatch.chdir("src")
    assert "deep/bad.py:12:13: FXG103" in run("-q")[1]


def test_settings_are_for_all_models_or_for_one(run: Run, analysis: Analysis) -> None:
    Path("two.py").write_text(TWO_INPUTS)
    project(
        'models = ["model.py", { model = "two.py", inputs = ["x=3x4", "y=3x4"], select = "FXG2", loss = "two.py:other", values = "real" }]\n'
        'inputs = ["x=5x4"]\nvalues = "fake"\nselect = ["FXG1"]'
    )
    Path("two.py").write_text(TWO_INPUTS + "\ndef other(output): return output.sum()\n")
    assert run("-q")[1].count("FXG103 bad-pattern") == 1
    assert analysis.seen() == [([[5, 4]], "fake", None), ([[3, 4], [3, 4]], "real", "other")]
    run("two.py", "-q")
    run("model.py", "--input", "x=7x4", "--values", "real")
    assert analysis.seen()[2:] == [([[3, 4], [3, 4]], "real", "other"), ([[7, 4]], "real", None)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('models = "model.py"', "models must be a list"),
        ("models = [1]", "models must hold strings, or tables with a `model`"),
        ("models = [{ inputs = [] }]", "models must hold strings, or tables with a `model`"),
        (
            'models = [{ model = "model.py", input = "x=2" }]',
            "a table of models has no setting 'input' (there are model, inputs, loss, values, select)",
        ),
        ('models = ["src/*.py"]', "models: no file is like 'src/*.py'"),
        ('models = ["model.py"]\nexclude = ["*.py"]', "models and exclude leave no model"),
        ('models = ["model.py"]\nexcluded = ["*.py"]', "has no setting 'excluded' (there are exclude, expect, frozen"),
        ('models = ["model.py"]\nvalues = "dry"', "values must be one of auto, fake, real"),
        ('models = ["model.py"]\nloss = ["a", "b"]', "loss must be a string"),
        ('models = ["model.py"]\ninputs = { x = "2x4" }', "inputs must be a list of strings"),
        ('models = ["model.py"]\nselect = ["XYZ"]', "there is no rule XYZ"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(run: Run, text: str, said: str) -> None:
    project(text)
    got = one_error_line(run())
    assert said in got
    if "no rule" not in said:
        assert got.startswith("pyproject.toml:1: [tool.fxgrad] ")


@pytest.mark.parametrize("text", ["", "ignore = []", "models = []"])
def test_a_project_without_models(run: Run, text: str) -> None:
    project(text)
    if "models" in text:
        assert "leave no model" in one_error_line(run())
    else:
        assert run() == run("--help")
        assert one_error_line(run("report")).startswith("the following arguments are required: MODEL")


# ------------------------------------------------------------------------------------------------------------ as a process


def process(code: str, tmp_path: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code with fxgrad importable."""
    root = Path(fxgrad.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), **options.pop("environment", {})}
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)


# The reader closes its end before anything is written: the first write already fails.
CLOSED = """
import os, sys
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
sys.argv = ["fxgrad", "rules"]
import fxgrad.__main__ as main
main.entry()
"""


def test_a_closed_pipe_leaves_no_traceback(tmp_path: Path) -> None:
    done = process(CLOSED, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


RUN_AS_MODULE = "import runpy, sys; sys.argv = ['fxgrad', 'report', 'model.py']; runpy.run_module('fxgrad', run_name='__main__')"


def test_python_m_fxgrad_on_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.replace("h = ", "größe = ").replace("head(h)", "head(größe)"))
    done = process(RUN_AS_MODULE, tmp_path, environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (1, "")
    assert "gr\\xf6\\xdfe = self.a(x).detach()" in done.stdout


# ---------------------------------------------------------------------------------------------------------------- bench


BREAKING = MODEL.replace("h = self.a(x).detach()\n", "h = self.a(x).sigmoid()\n        h += 1\n")


def test_bench_prints_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(BREAKING)
    status, out, err = run("bench", "model.py", "--input", "x=3x4", "--runs", "1")
    assert (status, err) == (0, "fxgrad: assumed: no name was given: the model is `Net()` in model.py\n")
    assert [line.split("  ")[0] for line in out.splitlines()[2:8]] == [
        "original", "original, again", "fixed (needed)", "fixed (all)", "allow_mutation_on_saved_tensors", "functionalize (make_fx)",
    ]  # fmt: skip
    assert "inputs 3x4:float32" in out


def test_bench_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(BREAKING)
    status, out, _ = run("bench", "model.py:Net", "--input", "x=3x4", "--runs", "1", "--device", "cpu", "--format", "json")
    assert (status, json.loads(out)["device"]) == (0, "cpu")


@pytest.mark.parametrize(
    ("model", "argv", "said"),
    [
        (MODEL.replace("return", "if h.sum() > 0:\n            return h\n        return"), (), "takes a branch on the value of a tensor"),
        (MODEL + "        return self.head(h)\n\nexample_inputs = (torch.ones(3, 4, device='meta'),)\n", (), "has no data"),
        (MODEL, ("--device", "cuda"), "no CUDA device is at hand"),
        (MODEL, ("--runs", "0"), "0 runs measure nothing"),
    ],
    ids=["refused", "no data", "no gpu", "no runs"],
)
def test_bench_that_cannot_run_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, argv: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "model.py").write_text(model)
    status, out, err = run("bench", "model.py", *argv)
    assert (status, out, err.count("\n"), said in err) == (2, "", 1, True)


KINDS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.body = nn.Linear(4, 4)
        if config.embed_kind > 1000:
            self.embed = nn.Linear(4, 4)

    def forward(self, x):
        return self.{asks}(self.body(x))
"""


def test_what_guessed_arguments_leave_unset_is_no_mistake_of_the_program(run: Run) -> None:
    Path("model.py").write_text(KINDS.format(asks="embed"))
    status, out, err = run("report", "model.py")
    assert (status, out) == (2, "")
    assert "the guessed arguments make a Net without `embed`, which it sets for others (write them with --arg" in err
    Path("model.py").write_text(KINDS.format(asks="embde"))
    status, out, _ = run("report", "model.py")
    assert (status, "FXG002" in out) == (1, True)
