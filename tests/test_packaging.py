"""What is installed: a wheel and an sdist are built from a copy of this tree, without a network, and looked into."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import fxgrad

ROOT = Path(__file__).resolve().parent.parent
BUILT = shutil.ignore_patterns(".*", "build", "dist", "venv", "*.egg-info", "__pycache__")


def build(hook: str, tree: Path) -> Path:
    """Run one PEP 517 hook of the build backend in `tree`; the file it made."""
    out = tree / f"dist-{hook}"
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{hook}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


def members(wheel: Path) -> set[str]:
    """The files of a wheel beside its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def package_files() -> set[str]:
    """The files of this tree that a user needs, as they lie once installed."""
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "fxgrad").rglob("*") if file.is_file()}
    files |= {f"fxgrad/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "passes").rglob("*") if file.is_file()}
    return {name for name in files if "__pycache__" not in name}


def declared() -> dict[str, list[str]]:
    """The dependencies in pyproject.toml by extra; "" are the core's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def distribution(requirement: str) -> str:
    """The normalized name a requirement begins with (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement)[0]).lower()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("packaging") / "tree"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=BUILT)
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    return build("sdist", tree)


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build("wheel", tree)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_wheel_holds_exactly_the_package(wheel: Path) -> None:
    assert members(wheel) == package_files()


def test_sdist_leaves_out_tests_and_benchmarks(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}
    assert folders == {"fxgrad", "fxgrad.egg-info", "passes"}


def test_wheel_from_the_sdist_is_the_same(sdist: Path, tmp_path: Path) -> None:
    # An sdist has no symlink: passes/ must be found by `package-dir` alone.
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert members(build("wheel", unpacked)) == package_files()


def test_core_requires_torch_and_tabulate_only(metadata: Message) -> None:
    core = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert core == {"torch>=2.11", "tabulate>=0.9"}


def test_wheel_has_the_version_of_the_package(metadata: Message) -> None:
    assert metadata["Version"] == fxgrad.__version__


def test_command_is_the_entry_of_the_cli(wheel: Path) -> None:
    config = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        config.read_string(archive.read(name).decode())
    assert dict(config["console_scripts"]) == {"fxgrad": "fxgrad.cli:entry"}


IMPORT = """
import json, sys
import torch
before = set(sys.modules)
import fxgrad
print(json.dumps([fxgrad.__file__, sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module")
def fresh_import(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """In a process of its own, from the unpacked wheel: where fxgrad was found, what else it loaded beside torch."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    file, loaded = json.loads(done.stdout)
    assert Path(file) == site / "fxgrad" / "__init__.py"
    return site, loaded


def test_import_loads_no_package_but_torch(fresh_import: tuple[Path, list[str]]) -> None:
    _, loaded = fresh_import
    packages = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    # `sysconfig` loads its platform's data under a name that is not in the interpreter's own list.
    assert {name for name in packages if not name.startswith("_sysconfigdata")} == {"fxgrad"}


def test_only_two_packages_are_needed_and_two_more_are_known() -> None:
    found: dict[str, set[str]] = {}
    for file in (*(ROOT / "fxgrad").rglob("*.py"), *(ROOT / "passes").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            for package in {name.partition(".")[0] for name in imported} - sys.stdlib_module_names:
                found.setdefault(package, set()).add(file.relative_to(ROOT).as_posix())
    assert set(found) == {"fxgrad", "torch", "tabulate", "rich", "pytest"}
    assert found["rich"] == {"fxgrad/cli/output.py", "fxgrad/cli/progress_line.py"}
    assert found["pytest"] == {"fxgrad/pytest_plugin.py"}


def test_import_does_not_load_the_compiler(fresh_import: tuple[Path, list[str]]) -> None:
    _, loaded = fresh_import
    assert [name for name in loaded if name.startswith(("torch._dynamo", "torch._inductor"))] == []


def test_symlink_shows_passes_inside_the_package() -> None:
    assert os.readlink(ROOT / "fxgrad" / "passes") == "../passes"


@pytest.mark.parametrize("extra", list(declared()), ids=lambda extra: extra or "core")
def test_constraints_pin_every_dependency(extra: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {distribution(line) for line in lines if "==" in line}
    assert {distribution(requirement) for requirement in declared()[extra]} - pinned == set()
