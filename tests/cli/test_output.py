"""What the command line writes and where: data and talk apart, colour only for a terminal, a closed pipe, completion, help, hooks."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from fxgrad.cli import completion, main
from fxgrad.cli.main import COMMANDS, Command, _parser
from fxgrad.cli.output import say, wants_colour

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).parents[1] / "examples"
ESCAPE = "\x1b["


class Terminal:
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_is_for_terminals(environment: dict[str, str], want: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich", reason="colour needs rich")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(Terminal()) is want
    assert wants_colour(object()) is ("FORCE_COLOR" in environment and want)


@pytest.mark.parametrize(
    ("choice", "environment", "want"), [("always", "NO_COLOR", True), ("never", "FORCE_COLOR", False), ("auto", "FORCE_COLOR", True)]
)
def test_an_option_wins_over_the_environment(
    choice: str, environment: str, want: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich", reason="colour needs rich")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(environment, "1")
    assert main(["report", "--color", choice, str(EXAMPLES / "speaker.py")]) == 1
    out = capsys.readouterr().out
    assert (ESCAPE in out) is want
    assert "\x1b]8" not in out  # links are for terminals
    assert main(["report", str(EXAMPLES / "speaker.py")]) == 1  # the choice is that of one command line
    assert (ESCAPE in capsys.readouterr().out) is (environment == "FORCE_COLOR")


def test_colour_that_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    main(["completion", "bash", "--color", "always"])
    assert capsys.readouterr().err == "fxgrad: colour needs rich: pip install rich\n"


def test_without_rich_there_is_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert wants_colour(Terminal()) is False


def test_colour_adds_nothing_but_colour(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich", reason="colour needs rich")
    text = "Net: 1 parameter\n\na  none   FXG103 m.py:1:1\nm.py:1:1: FXG103 x [error] `y` [0]\n  1 | y\n    | ^\n" + "long " * 60
    say(text, coloured=True)
    plain = capsys.readouterr().out
    assert plain == f"{text}\n"
    monkeypatch.setattr("fxgrad.cli.output.wants_colour", lambda stream: True)
    say(text, coloured=True)
    painted = capsys.readouterr().out
    assert ESCAPE in painted
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == plain


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    environment.pop("FORCE_COLOR", None)
    environment.pop("COLUMNS", None)  # it would be taken for the width of every terminal
    return [sys.executable, "-m", "fxgrad", *arguments], environment


def on_terminal(columns: int, *arguments: str) -> str:
    """What a terminal of this width is sent."""
    words, environment = command(*arguments)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(words, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    assert process.returncode == 1
    return seen.decode()


def test_a_terminal_sees_colour_links_and_a_table_that_fits() -> None:
    pytest.importorskip("rich", reason="colour needs rich")
    seen = on_terminal(60, "report", str(EXAMPLES / "speaker.py"))
    assert f"{ESCAPE}31mnone" in seen
    link = re.search(r"\x1b]8;[^;]*;(file://\S+/fxg103_detached_path\.py)\x1b\\(?:\x1b\[[\d;]*m)*FXG103", seen)
    assert link is not None
    assert Path(link.group(1).removeprefix("file://")).is_file()
    plain = re.sub(r"\x1b\[[\d;]*m|\x1b]8;[^\x1b]*\x1b\\", "", seen).replace("\r", "")
    table = plain.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 60
    assert "FXG103 tests/examples/" in plain
    sources = re.findall(r"^ +\d* \| .*$", plain, re.MULTILINE)
    assert sources
    assert max(map(len, sources)) <= 60


@pytest.mark.parametrize("words", [("report", str(EXAMPLES / "speaker.py")), ("rules",), ("explain", "FXG103")], ids=lambda words: words[0])
def test_a_closed_pipe_is_no_traceback(words: tuple[str, ...]) -> None:
    """The reader is gone before the first line is written."""
    line, environment = command(*words)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300, env=environment, cwd=ROOT)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


SCRIPT = """
import torch
print("talk of the script")
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
model(torch.ones(1, 2)).detach().requires_grad_().sum().backward()
optimizer.step()
"""


def test_data_of_a_run_is_alone_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    assert main(["run", "--format", "json", str(tmp_path / "train.py")]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["verdicts"] == {"model.weight": "none", "model.bias": "none"}
    assert said.err == "talk of the script\n"


def test_a_run_writes_its_report_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    assert main(["run", "--format", "json", "-o", str(tmp_path / "report.json"), str(tmp_path / "train.py")]) == 1
    said = capsys.readouterr()
    assert said.out == "talk of the script\n"
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is False
    assert "written" in said.err


def test_a_run_knows_its_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    words = ["run", "--baseline", str(tmp_path / "known.json")]
    assert main([*words, "--update-baseline", str(tmp_path / "train.py")]) == 0
    assert main([*words, str(tmp_path / "train.py")]) == 0
    assert main(["run", str(tmp_path / "train.py")]) == 1
    assert main(["run", "--ignore", "FXG1", str(tmp_path / "train.py")]) == 0
    capsys.readouterr()


# ---------------------------------------------------------------------------------------------------------------- words


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word, in a folder with these files."""
    (folder / "folder").mkdir()
    (folder / "README.md").touch()
    script = completion.script("bash", _parser())
    asked = f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _fxgrad\n"
    done = subprocess.run(
        ["bash", "-c", asked + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, timeout=60, cwd=folder
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("words", "want"),
    [
        (("fxgrad", "re"), ["report"]),
        (("fxgrad", "report", "--for"), ["--format"]),
        (("fxgrad", "report", "--format", "s"), ["sarif"]),
        (("fxgrad", "completion", "f"), ["fish", "folder"]),
        (("fxgrad", "report", "READ"), ["README.md"]),
    ],
)
def test_bash_completes(words: tuple[str, ...], want: list[str], tmp_path: Path) -> None:
    assert completed(tmp_path, *words) == want


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for item in COMMANDS:
        assert item.name in text
    for option in ("traceback", "format", "unsafe-fixes", "steps", "baseline"):
        assert option in text


@pytest.mark.parametrize("item", COMMANDS, ids=lambda item: item.name)
def test_help_has_examples(item: Command, capsys: pytest.CaptureFixture[str]) -> None:
    name = item.name
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n  fxgrad {name}" in text.partition("example")[2]


def test_hooks_run_commands_there_are() -> None:
    yaml = pytest.importorskip("yaml")
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {hook["id"] for hook in hooks} == {"fxgrad", "fxgrad-run"}
    for hook in hooks:
        assert hook["entry"].split()[0] == "fxgrad"
        assert hook["entry"].split()[1] in {item.name for item in COMMANDS}
        assert {"name", "language", "pass_filenames"} <= set(hook)
