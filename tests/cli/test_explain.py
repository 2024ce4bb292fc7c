"""`fxgrad explain`: an error's text, a traceback, a log, a code; on stdin, in a file, in an argument; and without torch."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fxgrad
from fxgrad import cli
from fxgrad.cli.explain import EXAMPLES
from fxgrad.cli.pasted import errors_in, is_own
from fxgrad.passes import RULES

Run = Callable[..., tuple[int, str, str]]

SECOND = "RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors after they have been freed)."
ELEMENT = "element 0 of tensors does not require grad and does not have a grad_fn"

TRACEBACK = f"""\
Epoch 1 begins
Traceback (most recent call last):
  File "/home/ada/project/train.py", line 40, in <module>
    main()
  File "/home/ada/project/steps.py", line 12, in step
    loss.backward()
  File "/opt/venv/lib/python3.12/site-packages/torch/_tensor.py", line 623, in backward
    torch.autograd.backward(
  File "/usr/lib/python3.12/contextlib.py", line 81, in inner
    return func(*args, **kwds)
{SECOND}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def run_line(*argv: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = cli.main(["explain", *argv])
        out, err = capsys.readouterr()
        return status, out, err

    return run_line


def test_a_text_is_explained(run: Run) -> None:
    status, out, err = run(ELEMENT)
    assert (status, err) == (0, "")
    for heading in ("What it means", "What causes it", "What is often said", "What mends it", "What to run next"):
        assert f"\n{heading}\n" in out
    assert "fxgrad run SCRIPT" in out
    assert "fxgrad explain FXG116" in out


def test_a_traceback_gives_the_users_own_line_and_the_script_to_run(run: Run) -> None:
    status, out, _ = run(stdin=TRACEBACK)
    assert status == 0
    assert out.startswith(f"{SECOND}\n")
    assert "/home/ada/project/steps.py:12 in step\n        loss.backward()\n" in out
    assert "fxgrad run /home/ada/project/train.py " in out
    assert "site-packages" not in out


def test_the_line_is_read_from_the_file_where_the_traceback_does_not_show_it(run: Run) -> None:
    Path("train.py").write_text("a = 1\nloss.backward()\n")
    _, out, _ = run(stdin=f'  File "{Path("train.py").resolve()}", line 2, in <module>\n{SECOND}\n')
    assert "        loss.backward()\n" in out


@pytest.mark.parametrize("argument", ["log.txt", "-", ""])
def test_a_log_comes_in_a_file_or_on_stdin(run: Run, argument: str) -> None:
    Path("log.txt").write_text(TRACEBACK)
    status, out, _ = run(*filter(None, [argument]), stdin=TRACEBACK)
    assert (status, out.startswith(SECOND)) == (0, True)


@pytest.mark.parametrize(
    "text",
    [
        TRACEBACK.replace("\n", "\n[rank0]: "),
        TRACEBACK.replace("\n", "\nE   "),
        TRACEBACK.replace("a second time", "a second\ntime"),
        "2026-11-26 12:00:00 INFO step 3\n" + TRACEBACK + "\n[Process exited with code 1]\n",
    ],
    ids=["ranks", "pytest", "wrapped", "log"],
)
def test_a_traceback_is_found_in_what_surrounds_it(text: str) -> None:
    (said,) = (said for said in errors_in(text) if said.entry is not None)
    assert said.entry is not None
    assert said.entry.name == "second-time"
    own = said.own()
    assert own is not None
    assert (own.file, own.line) == ("/home/ada/project/steps.py", 12)


def test_of_several_errors_each_is_explained_and_what_was_only_warned_of_last(run: Run) -> None:
    warned = "/home/ada/train.py:3: UserWarning: None of the inputs have requires_grad=True. Gradients will be None\n  warnings.warn(\n"
    _, out, _ = run(
        stdin=f"{warned}{TRACEBACK}\nDuring handling of the above exception, another exception occurred:\n\nRuntimeError: {ELEMENT}\n"
    )
    order = [out.index(words) for words in (SECOND, ELEMENT, "UserWarning: None of the inputs")]
    assert order == sorted(order)


def test_the_same_error_on_every_rank_is_explained_once(run: Run) -> None:
    _, out, _ = run(stdin=TRACEBACK + TRACEBACK)
    assert out.count("What it means") == 1


def test_a_none_beside_a_known_error_is_not_taken_for_a_gradient(run: Run) -> None:
    _, out, _ = run(stdin=f"AttributeError: 'NoneType' object has no attribute 'close'\n{TRACEBACK}")
    assert "Something is None" not in out
    assert out.startswith(SECOND)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x5 and 4x8)",
            "this is none of the errors about gradients that are known: RuntimeError: mat1",
        ),
        ("gradients come out as a wrong number today", "this is none of the errors about gradients that are known: gradients come out"),
        (" \n", "the text is empty"),
    ],
)
def test_what_is_unknown_is_said_to_be_so_in_one_line(run: Run, text: str, line: str) -> None:
    status, out, err = run(stdin=text)
    assert (status, out) == (2, "")
    assert err.startswith(f"fxgrad: error: {line}")
    assert err.count("\n") == 1


def test_near_sentences_are_listed_and_not_guessed(run: Run) -> None:
    status, out, err = run("the leaf Variable requires grad and is used inplace")
    assert (status, out) == (2, "")
    assert 'near it: "a leaf Variable that requires grad"' in err


@pytest.mark.parametrize("code", [rule.CODE for rule in RULES])
def test_every_code_that_can_be_printed_is_explained(run: Run, code: str) -> None:
    status, out, _ = run(code)
    assert status == 0
    assert out.startswith(f"{code} ")
    assert "\nNot handled\n" in out


def test_the_codes_of_the_source_all_have_rules() -> None:
    import re

    root = Path(fxgrad.__file__).parent
    written = {code for file in root.rglob("*.py") for code in re.findall(r'"(FXG\d{3})"', file.read_text(encoding="utf-8"))}
    assert written <= {rule.CODE for rule in RULES}


def test_it_needs_no_torch() -> None:
    code = f"import sys; from fxgrad.cli import main; assert main(['explain', {ELEMENT!r}]) == 0; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("/home/ada/train.py", True),
        ("C:\\work\\train.py", True),
        ("/opt/venv/lib/python3.12/site-packages/torch/_tensor.py", False),
        ("C:\\Python312\\Lib\\site-packages\\torch\\_tensor.py", False),
        ("/usr/lib/python3.12/contextlib.py", False),
        ("/usr/lib/python3/dist-packages/torch/_tensor.py", False),
        ("<frozen runpy>", False),
    ],
)
def test_whose_file_it_is(file: str, own: bool) -> None:
    assert is_own(file) is own


# ---------------------------------------------------------------------------------------------- as JSON


def test_rules_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rules", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [rule["code"] for rule in found["rules"]] == [rule.CODE for rule in RULES]
    assert [rule["severity"] for rule in found["rules"]] == [rule.SEVERITY for rule in RULES]
    (cut,) = [rule for rule in found["rules"] if rule["code"] == "FXG103"]
    assert list(cut["sections"]) == ["What it finds", "Why it matters", "Example", "Instead", "When the fix is safe", "Not handled"]
    assert cut["sections"]["Instead"].startswith("def forward(self, x):\n    h = self.encoder(x)\n")
    assert cut["page"].endswith("/passes/rules/fxg103_detached_path.py")


def test_an_explanation_as_data(run: Run) -> None:
    found = json.loads(run("detached-path", "--format", "json")[1])
    assert [rule["code"] for rule in found["rules"]] == ["FXG103"]
    assert found["errors"] == []
    (error,) = json.loads(run("--format", "json", stdin=TRACEBACK)[1])["errors"]
    assert (error["type"], error["message"]) == tuple(SECOND.split(": ", 1))
    assert error["line"] == {"file": "/home/ada/project/steps.py", "line": 12, "function": "step", "text": "loss.backward()"}
    assert (error["rule"], error["next"]) == ("FXG201", "fxgrad run /home/ada/project/train.py")
    assert error["causes"]
    assert json.loads(run(error["name"], "--format", "json")[1])["errors"][0]["means"] == error["means"]
    assert run("nothing known", "--format", "json")[:2] == (2, "")


def test_the_texts_of_the_examples_are_explained(run: Run) -> None:
    texts = re.findall(r'fxgrad explain "([^"]+)"', EXAMPLES)
    assert texts
    assert [run(text)[0] for text in texts] == [0] * len(texts)
