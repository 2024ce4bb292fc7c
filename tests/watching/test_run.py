"""`fxgrad run`: eighteen training scripts, each healthy and broken, and that a script runs as under `python`.

`tests/scripts/*.py` are ordinary scripts that take `--broken`. A line that must be named then ends in a comment `# FXG103`.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from fxgrad.records.errors import LoadError
from fxgrad.report import Report
from fxgrad.watching.script import run_script

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))
MARK = re.compile(r"# (FXG\d{3})$")


def write(folder: Path, text: str, name: str = "script.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def named(report: Report) -> set[tuple[str, int]]:
    return {(f.code, f.site.line) for f in report.findings if f.severity == "error" and f.site is not None}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_healthy_script_is_quiet(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, status = run_script(str(path))
    assert report is not None
    assert [f for f in report.findings if f.severity != "note"] == []
    assert status == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_broken_script_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, status = run_script(str(path), ["--broken"])
    capsys.readouterr()
    want = {(m[1], n) for n, line in enumerate(path.read_text().splitlines(), 1) if (m := MARK.search(line))}
    assert want, "a script marks the line that must be named"
    assert report is not None
    assert named(report) == want, str(report)
    assert status == 1


@pytest.mark.parametrize("name", ["gan", "actor_critic", "supervised", "lora", "mixed_precision", "by_hand"])
def test_watched_script_prints_the_same_numbers(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(str(p) for p in SCRIPTS if p.stem == name)
    monkeypatch.setattr(sys, "argv", [path])
    runpy.run_path(path, run_name="__main__")
    want = capsys.readouterr().out
    run_script(path, go_on=True)
    assert capsys.readouterr().out == want


# ------------------------------------------------------------------------------------------------ as `python script.py`

PLAIN = """
import sys
import helper
from pathlib import Path
assert __name__ == "__main__"
assert sys.modules["__main__"].here == 1 if "here" in globals() else True
print(sys.argv[1:], Path(sys.argv[0]).name, Path(__file__).is_absolute(), helper.value, Path(sys.path[0]).name == Path(__file__).parent.name)
class Kept: pass
import pickle
print(type(pickle.loads(pickle.dumps(Kept()))) is Kept)
"""


def test_script_sees_what_python_gives_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "helper.py").write_text("value = 7\n")
    before = (sys.argv[:], sys.path[:], sys.modules["__main__"])
    run_script(write(tmp_path, PLAIN), ["--lr", "0.1"])
    assert capsys.readouterr().out == "['--lr', '0.1'] script.py True 7 True\nTrue\n"
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before


STEPS = """
import torch
from torch import nn
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
try:
    for step in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        print("step", step)
finally:
    print("closing")
print("end")
"""


AS_MODULE = """
import sys
from ..helper import value
from pathlib import Path
assert __name__ == "__main__"
print(sys.argv[1:], sys.argv[0] == __file__, Path(__file__).is_absolute(), value, sys.path[0] == str(Path.cwd()))
print(__package__, __spec__.name, __loader__ is __spec__.loader, Path(__cached__).name.partition(".")[0])
class Kept: pass
import pickle
print(type(pickle.loads(pickle.dumps(Kept()))) is Kept)
"""


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Packages of Python files in the working directory, by path."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(("name", "file"), [("outer.inner.train", "outer/inner/train.py"), ("outer.inner", "outer/inner/__main__.py")])
def test_module_sees_what_python_gives_it(name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(
        tmp_path, monkeypatch, {"outer/__init__.py": "", "outer/helper.py": "value = 7\n", "outer/inner/__init__.py": "", file: AS_MODULE}
    )
    plain, watched = (
        subprocess.run(
            [sys.executable, *words, name, "--lr", "0.1"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        for words in (["-m"], ["-m", "fxgrad", "run", "-m"])
    )
    assert plain.returncode == 0, plain.stderr
    assert watched.stdout == plain.stdout


def test_module_is_reported_by_its_name_and_all_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, {"stepping/__init__.py": "", "stepping/train.py": STEPS})
    before = (sys.argv[:], sys.path[:], sys.modules["__main__"])
    report, status = run_script("stepping.train", as_module=True)
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before
    assert report is not None
    assert (report.model, dict(report.verdicts), status) == ("stepping.train", {"model.weight": "flows", "model.bias": "flows"}, 0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("absent", "give its name as `python -m` takes it"),
        ("bare", "give its name"),
        ("bare.absent", "give its name"),
        ("bare.one.two", "give its name"),
        ("bare/one.py", "without -m for a file"),
        ("one.py", "without -m for a file"),
        ("math", "give its name"),
    ],
)
def test_module_that_is_not_there(name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, {"bare/__init__.py": "", "bare/one.py": ""})
    with pytest.raises(LoadError, match=f"there is no module {name} that can be run") as caught:
        run_script(name, as_module=True)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("kind", ["raise ValueError('mine')", "import absent_of_all", "def f(:"], ids=["raises", "imports", "syntax"])
def test_module_whose_package_fails_dies_of_the_users_error(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "failing_" + kind.partition(" ")[0]
    package(tmp_path, monkeypatch, {f"{name}/__init__.py": kind, f"{name}/train.py": STEPS})
    report, status = run_script(f"{name}.train", as_module=True)
    assert (report, status) == (None, 1)
    err = capsys.readouterr().err
    assert f'{tmp_path}/{name}/__init__.py", line 1' in err
    assert str(ROOT) not in err


def test_script_ends_before_its_second_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, status = run_script(write(tmp_path, STEPS))
    assert capsys.readouterr().out == "step 0\nclosing\n"
    assert report is not None
    assert dict(report.verdicts) == {"model.weight": "flows", "model.bias": "flows"}
    assert status == 0


def test_more_steps_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(write(tmp_path, STEPS), steps=3)
    assert capsys.readouterr().out == "step 0\nstep 1\nstep 2\nclosing\n"


def test_script_goes_on_unwatched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STEPS.replace('print("step", step)', 'print("step", step, len(torch.overrides._get_current_function_mode_stack()))')
    shown: list[Report] = []
    run_script(write(tmp_path, text), go_on=True, show=shown.append)
    assert capsys.readouterr().out == "step 0 1\n" + "".join(f"step {i} 0\n" for i in range(1, 5)) + "closing\nend\n"
    assert len(shown) == 1


def test_script_that_swallows_the_end_takes_no_further_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guarded = "        try:\n            optimizer.step()\n        except:\n            print('refused')\n            continue\n"
    run_script(write(tmp_path, STEPS.replace("        optimizer.step()\n", guarded)))
    assert capsys.readouterr().out == "step 0\n" + 4 * "refused\n" + "closing\nend\n"


def test_torch_is_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (nn.Module.__call__, torch.autograd.backward, torch.from_numpy, torch.compile, torch.optim.Optimizer.__init__)
    run_script(write(tmp_path, STEPS))
    after = (nn.Module.__call__, torch.autograd.backward, torch.from_numpy, torch.compile, torch.optim.Optimizer.__init__)
    assert after == before
    assert not _global_optimizer_pre_hooks
    assert not _global_optimizer_post_hooks


@pytest.mark.parametrize(
    ("text", "status"), [("import sys; sys.exit(3)", 3), ("x = 1", 2), ("raise SystemExit", 2), ("1 / 0", 1), ("x = (", 1)]
)
def test_status_without_training(tmp_path: Path, text: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    report, got = run_script(write(tmp_path, text))
    assert (report, got) == (None, status)


def test_missing_script_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot read"):
        run_script(str(tmp_path / "none.py"))


CRASHES = {
    "shapes": "import torch\nfrom torch import nn\nmodel = nn.Sequential(nn.Linear(3, 2))\ndef f(x):\n    return model(x)\nf(torch.randn(2, 4))\n",
    "inplace": (
        "import torch\nw = torch.randn(3, requires_grad=True)\ndef f(h):\n    h += 1\n    return h\n"
        "y = f(torch.sigmoid(w))\ny.sum().backward()\n"
    ),
    "function": (
        "import torch\nclass F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        raise ValueError('no')\n"
        "x = torch.randn(3)\nwith torch.device('cpu'):\n    F.apply(x)\n"
    ),
}


@pytest.mark.parametrize("name", CRASHES)
def test_traceback_is_pythons_own(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, CRASHES[name])
    plain = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
    code = f"import sys; from fxgrad.watching.script import run_script; sys.exit(run_script({path!r})[1])"
    root = str(Path(__file__).parents[2])
    watched = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=root)
    assert watched.stderr == plain.stderr
    assert watched.returncode == plain.returncode == 1


def test_report_stands_under_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    path = write(tmp_path, CRASHES["inplace"])
    report, _ = run_script(path, show=lambda r: order.append(capsys.readouterr().err))
    assert "modified by an inplace operation" in order[0]
    assert report is not None
    finding = next(f for f in report.findings if f.code == "FXG201")
    assert finding.site is not None
    assert finding.site.line == 4
    assert "torch.sigmoid(w)" in finding.message


UNUSUAL = {
    "a lazy module's first call": (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.spare = nn.LazyLinear(4), nn.LazyLinear(2)\n"
        "    def forward(self, x):\n"
        "        return self.a(x)\n"
        "net = Net()\n"
        "net(torch.randn(2, 3))\n"
        "optimizer = torch.optim.SGD(net.a.parameters(), 0.1)\n"
    ),
    "nested tensors": (
        "net = nn.Linear(3, 4)\n"
        "optimizer = torch.optim.SGD(net.parameters(), 0.1)\n"
        "torch.nested.to_padded_tensor(net(torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(1, 3)])), 0.0)\n"
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_tensors_without_a_shape_do_not_end_a_watch(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    loop = "for step in range(3):\n    optimizer.zero_grad()\n    net(torch.randn(5, 3)).pow(2).mean().backward()\n    optimizer.step()\n"
    report, status = run_script(write(tmp_path, f"import torch\nfrom torch import nn\n{UNUSUAL[name]}{loop}"))
    capsys.readouterr()
    assert report is not None
    flowing = {path for path, verdict in report.verdicts.items() if verdict == "flows"}
    assert len(flowing) == 2
    assert [f for f in report.findings if f.severity == "error"] == []
    assert status == 0


def test_an_error_of_the_watch_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fxgrad.trace.ledger.Ledger.read", read)
    with pytest.warns(RuntimeWarning, match="an error of fxgrad's own: ZeroDivisionError"):
        assert run_script(write(tmp_path, STEPS))[0] is None


# ------------------------------------------------------------------------------------------------ what kills scripts

DEATHS = {
    "leaf": ("m = nn.Linear(3, 2)\nm.weight += 1  # FXG202\n"),
    "non leaf": ("w = torch.randn(3, requires_grad=True) * 0.1  # FXG302\ntorch.optim.SGD([w], 0.1)\n"),
    "no grad": ("m = nn.Linear(3, 2)\npred = m(torch.randn(2, 3)).argmax(1).float()  # FXG105\npred.mean().backward()\n"),
    "number": ("m = nn.Linear(3, 2)\nloss = m(torch.randn(2, 3)).sum().item()  # FXG107\nloss.backward()\n"),
    "second time": (
        "m = nn.RNN(3, 4)\nh = None\nfor _ in range(2):\n    out, h = m(torch.randn(5, 2, 3), h)  # FXG201\n    out.sum().backward()\n"
    ),
    "no gradient yet": ("w = torch.randn(3, requires_grad=True)\nw.grad.zero_()  # FXG205\n"),
    "never in the loss": (
        "w, v = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)\n(w**2).sum().backward()\nv.grad.zero_()  # FXG101\n"
    ),
    "no parameters": ("class M(nn.Module):\n    pass\ntorch.optim.SGD(M().parameters(), 0.1)  # FXG301\n"),
    "in a container": (
        "m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))\nm[1](torch.randn(2, 3)).sum().backward()\nm[0].weight.grad.norm()  # FXG101\n"
    ),
    "kept before a function": (
        "m, spare = nn.Linear(3, 1), nn.Linear(3, 1)\nloss = m(torch.randn(2, 3)).sum()\n"
        "asked = torch.autograd.grad(loss, [m.weight, spare.weight], allow_unused=True)  # FXG101\nlast = asked[1]\n\n"
        "def told(value):\n    return print(value)\n\ntold(last.norm())\n"
    ),
    "an item from the end": (
        "m = nn.Linear(3, 1)\nout = m(torch.randn(2, 3))\nlosses = [\n    out.mean().item(),  # FXG107\n    out.square().mean(),\n]\n"
        "losses[-2].backward()\n"
    ),
    "the one item, from the end": (
        "m = nn.Linear(3, 1)\nout = m(torch.randn(2, 3))\nlosses = [out.mean().item()]  # FXG107\n"
        "print(out.detach().max().item())\nlosses[-1].backward()\n"
    ),
    "one of two sparse tables": (
        "other = nn.Embedding(5, 3, sparse=True)\nwords = nn.Embedding(9, 3, sparse=True)  # FXG002\n"
        "net = nn.ModuleDict({'words': words})\noptimizer = torch.optim.Adam(net.parameters())\n"
        "net['words'](torch.tensor([1, 2])).sum().backward()\noptimizer.step()\n"
    ),
    "slope of a function": (
        "class Act(nn.Module):\n    def forward(self, h):\n        return nn.functional.leaky_relu_(h, -0.1)  # FXG201\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.lin = nn.Linear(3, 3)\n        self.act = Act()\n"
        "    def forward(self, x):\n        return self.act(self.lin(x))\n\n"
        "Net()(torch.randn(2, 3)).sum().backward()\n"
    ),
    "cut off in a function": (
        "class Slope(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        with torch.enable_grad():\n"
        "            y = x.detach().exp()\n            return torch.autograd.grad(y.sum(), x)[0]  # FXG002\n\n"
        "Slope.apply(nn.Linear(3, 3)(torch.randn(2, 3)))\n"
    ),
    "a list that a checkpoint fills": (
        "from torch.utils.checkpoint import checkpoint\nlin, seen = nn.Linear(4, 4), []\n\n"
        "def part(x):\n    seen.append(x)  # FXG002\n    return lin(x).exp() if len(seen) == 1 else lin(x)\n\n"
        "checkpoint(part, torch.randn(2, 4), use_reentrant=False).sum().backward()\n"
    ),
    "integers": ("p = nn.Parameter(torch.tensor([1, 2, 3]))  # FXG106\n"),
    "inference": (
        "m = nn.Linear(3, 1)\nwith torch.inference_mode():  # FXG104\n    x = torch.randn(2, 3)\nloss = m(x).sum()\nloss.backward()\n"
    ),
    "numpy": ("m = nn.Linear(3, 2)\ny = m(torch.randn(2, 3))\nprint(y.numpy())  # FXG107\n"),
    "overwritten": ("w = torch.randn(3, requires_grad=True)\ny = w.exp()\ny += 1  # FXG201\ny.sum().backward()\n"),
    "step too early": (
        "G, D = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))\nopt = torch.optim.Adam(D.parameters())\n"
        "fake = G(torch.randn(4, 2))\nloss = -D(fake).mean()\nD(fake.detach()).mean().backward()\nopt.step()  # FXG205\nloss.backward()\n"
    ),
    "expanded": ("b = nn.Parameter(torch.zeros(1, 3))\nx = b.expand(2, 3)\nx += 1  # FXG202\n"),
    "vector": ("m = nn.Linear(3, 2)\nm(torch.randn(2, 3)).backward()  # FXG116\n"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_death_is_explained(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"import torch\nfrom torch import nn\n{DEATHS[name]}"
    report, status = run_script(write(tmp_path, text))
    capsys.readouterr()
    want = {(m[1], n) for n, line in enumerate(text.splitlines(), 1) if (m := MARK.search(line))}
    assert report is not None
    assert named(report) == want, str(report)
    assert status == 1


def test_other_error_after_a_step_leaves_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STEPS.replace('print("step", step)', "raise KeyError('lr')")
    report, status = run_script(write(tmp_path, text))
    assert "KeyError: 'lr'" in capsys.readouterr().err
    assert report is not None
    assert dict(report.verdicts) == {"model.weight": "flows", "model.bias": "flows"}
    assert status == 1


def test_other_error_within_the_first_step_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STEPS.replace("optimizer.step()", "raise KeyError('lr')")
    assert run_script(write(tmp_path, text)) == (None, 1)
    assert "KeyError" in capsys.readouterr().err


def test_compiled_code_is_said_to_run_eagerly() -> None:
    report, _ = run_script(str(Path(__file__).parents[1] / "scripts" / "compiled.py"))
    assert report is not None
    assert any("eagerly" in said for said in report.assumptions)


def test_a_conversion_is_no_use_of_a_parameter(tmp_path: Path) -> None:
    text = (
        "import torch\nfrom torch import nn\nm = nn.ModuleDict({\n    'used': nn.Linear(3, 1),\n    'spare': nn.Linear(3, 1),\n})\n"
        "m.double()\nopt = torch.optim.SGD(m.parameters(), 0.1)\nx = torch.ones(2, 3).double()\n"
        "for _ in range(2):\n    m['used'](x).sum().backward()\n    opt.step()\n"
    )
    report, _ = run_script(write(tmp_path, text))
    assert report is not None
    (finding,) = [f for f in report.findings if f.code == "FXG101"]
    assert "never called" in finding.message


def test_module_of_a_container_is_named_by_its_own_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "import torch\nfrom torch import nn\nm = nn.Sequential(\n    nn.Linear(3, 3),\n    nn.Sigmoid(),\n    nn.ReLU(inplace=True),\n)\n"
    )
    report, _ = run_script(write(tmp_path, text + "m(torch.randn(2, 3)).sum().backward()\n"))
    capsys.readouterr()
    assert report is not None
    assert named(report) == {("FXG201", 6)}
    assert "`nn.Sigmoid()` (line 5)" in report.findings[0].message


def fxgrad_run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "fxgrad", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=environment)


def test_command_with_workers_that_load_data(tmp_path: Path) -> None:
    script = str(Path(__file__).parents[1] / "scripts" / "image_classifier.py")
    done = fxgrad_run(script, "--workers", "2", "--amp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all get a gradient, no findings" in done.stdout
    assert done.stderr == ""


def test_command_ends_with_the_scripts_own_status(tmp_path: Path) -> None:
    path = write(tmp_path, STEPS + "import sys\nsys.exit(7)\n")
    done = fxgrad_run("--continue", path, cwd=tmp_path)
    assert done.returncode == 7
    assert "all get a gradient" in done.stdout
    assert done.stdout.endswith("end\n")


def test_error_without_gradients_is_left_to_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, status = run_script(write(tmp_path, "none = None\nnone.zero_()\n"))
    assert (report, status) == (None, 1)
    assert "AttributeError" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ warnings

WARNS = """\
import torch
from torch import nn
from torch.nn import functional as F
net = nn.Linear(3, 3)
opt = torch.optim.SGD(net.parameters(), 0.1)
h = torch.randn(2, 3, requires_grad=True) * 2
loss = F.softmax(net(h)).square().sum()  # warns: of no dimension
loss = loss + nn.MSELoss()(net(h), torch.zeros(1, 3))  # in torch's own file: of sizes
loss.backward()
h.grad  # warns: of no leaf
opt.step()
"""


def test_a_warning_stands_where_a_plain_run_has_it(tmp_path: Path) -> None:
    path = write(tmp_path, WARNS)
    places = []
    for run in (lambda: runpy.run_path(str(path)), lambda: run_script(str(path))):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            run()
        places.append([(w.filename, w.lineno) for w in warned])
    plain, watched = places
    assert [line for file, line in plain if file == str(path)] == [7, 10]
    assert watched == plain


LAZY = """import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.LazyLinear(8), nn.LazyBatchNorm1d()
        self.last = nn.Linear(8, 1)
{spare}
    def forward(self, x):
        return self.last(self.norm(self.first(x)))

net = Net()
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(3):
    opt.zero_grad()
    net(torch.randn(3, 4)).mean().backward()
    opt.step()
"""


def test_lazy_layers_of_an_optimizer_made_before_their_first_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, status = run_script(write(tmp_path, LAZY.format(spare="")))
    assert report is not None
    assert (report.findings, status, report.assumptions) == ((), 0, ())


def test_a_lazy_layer_that_is_never_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = LAZY.format(spare="        self.spare = nn.LazyLinear(2)  # FXG101")
    report, _ = run_script(write(tmp_path, text))
    assert report is not None
    assert named(report) == {("FXG101", 9)}
