"""An archive of torch.export runs no code of its own without trust, and those that torch writes are read."""

from __future__ import annotations

import enum
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxgrad import Inputs, LoadError, analyze
from fxgrad.program.load import load
from fxgrad.program.load.untrusted import is_operator, not_plain

Program = dict[str, Any]


class Net(nn.Module):
    """A size that is an expression, a keyword input that is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> torch.Tensor:
        rows: torch.Tensor = self.a(x).reshape(2 * x.shape[0], 1)
        return rows * more["scale"]


ROWS = torch.export.Dim("rows", min=2, max=64)
SHAPES = {"x": {0: ROWS}, "more": {"scale": None}}


def export(model: nn.Module, args: tuple[Any, ...], file: Path, **more: Any) -> None:
    torch.export.save(torch.export.export(model, args, **more), file)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "net.pt2"
    export(Net(), (torch.ones(4, 3),), file, kwargs={"more": {"scale": torch.ones(2)}}, dynamic_shapes=SHAPES)
    return file


def rewritten(file: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Change the members, by their names inside the archive's folder."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    folder = next(iter(members)).partition("/")[0]
    inside = {name.partition("/")[2]: content for name, content in members.items()}
    change(inside)
    with zipfile.ZipFile(file, "w") as new:
        for name, content in inside.items():
            new.writestr(f"{folder}/{name}", content)


def with_program(change: Callable[[Program], None]) -> Callable[[dict[str, bytes]], None]:
    def changed(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return changed


def with_text(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    """Replace a JSON string throughout the program."""

    def changed(members: dict[str, bytes]) -> None:
        text = members["models/model.json"].decode()
        assert json.dumps(old) in text
        members["models/model.json"] = text.replace(json.dumps(old), json.dumps(new)).encode()

    return changed


def every(value: Any, key: str) -> list[Program]:
    """The dicts that have the key."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [item for part in inner for item in every(part, key)]
    return [value, *found] if isinstance(value, dict) and key in value else found


def sizes(text: str) -> Callable[[dict[str, bytes]], None]:
    def changed(program: Program) -> None:
        for size in every(program, "expr_str"):
            size["expr_str"] = text

    return with_program(changed)


def guards(text: str) -> Callable[[dict[str, bytes]], None]:
    return with_program(lambda program: program.update(guards_code=[text]))


def operator(target: str, argument: str) -> Callable[[dict[str, bytes]], None]:
    def changed(program: Program) -> None:
        node = program["graph_module"]["graph"]["nodes"][-1]
        node["target"] = target
        node["inputs"] = [{"name": "", "kind": 1, "arg": {"as_string": argument}}]

    return with_program(changed)


def structure(change: Callable[[Program], None]) -> Callable[[dict[str, bytes]], None]:
    """The innermost dict of the inputs' structure is another."""

    def changed(program: Program) -> None:
        for entry in every(program, "in_spec"):
            protocol, spec = json.loads(entry["in_spec"])
            change(next(item for item in every(spec, "type") if item["context"] == '["scale"]'))
            entry["in_spec"] = json.dumps([protocol, spec])

    return with_program(changed)


def argument_names(names: list[str]) -> Callable[[dict[str, bytes]], None]:
    def changed(program: Program) -> None:
        for entry in every(program, "forward_arg_names"):
            entry["forward_arg_names"] = names

    return with_program(changed)


class Bomb:
    """Unpickling one makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path(self.path),)


def constant(record: str, path_name: str, bomb: Path) -> Callable[[dict[str, bytes]], None]:
    def changed(members: dict[str, bytes]) -> None:
        entry = {"path_name": path_name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        members["data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()
        members[f"data/constants/{record}"] = pickle.dumps(Bomb(bomb))

    return changed


def other_key(key: str) -> Callable[[dict[str, bytes]], None]:
    """The example inputs have this key: it goes into the messages of guards."""

    def changed(members: dict[str, bytes]) -> None:
        stream = io.BytesIO()
        torch.save(((torch.ones(4, 3),), {"more": {key: torch.ones(2)}}), stream)
        members["data/sample_inputs/model.pt"] = stream.getvalue()

    return changed


# By what is changed: how, given a folder to make and code that makes it.
ATTACKS: dict[str, Callable[[Path, str], Callable[[dict[str, bytes]], None]]] = {
    "size, an argument": lambda _, code: sizes(f"Symbol('s0', integer={code} is None)"),
    "size, text that is parsed": lambda _, code: sizes(f"sympify({code!r})"),
    "size, an attribute": lambda folder, _: sizes(
        f"Symbol.__init__.__globals__['__builtins__']['__import__']('os').mkdir({str(folder)!r})"
    ),
    "guard": lambda _, code: guards(f"{code} is None"),
    "input's name": lambda _, code: with_text("x", f"x={code}"),
    "argument's name": lambda _, code: argument_names([f"x={code}", "more"]),
    "operator": lambda folder, _: operator("torch.serialization.os.mkdir", str(folder)),
    "operator that writes a file": lambda folder, _: operator("torch.ops.aten.save.default", str(folder)),
    "structure, an enum's module": lambda *_: structure(
        lambda item: item.update(context=json.dumps([{"__enum__": True, "fqn": "beside:A", "name": "b"}]))
    ),
    "structure, a factory's module": lambda *_: structure(
        lambda item: item.update(
            type="collections.defaultdict",
            context={"default_factory_module": "beside", "default_factory_name": "A", "dict_context": ["scale"]},
        )
    ),
    "pickle, in a folder of the name": lambda folder, _: constant("opaque_obj_/0", "opaque_obj_/0", folder),
    "pickle, in capitals": lambda folder, _: constant("OPAQUE_OBJ_0", "opaque_obj_0", folder),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_of_an_archive_runs(archive: Path, tmp_path: Path, attack: str) -> None:
    folder = tmp_path / "ran"
    (tmp_path / "beside.py").write_text(f"import os\nos.mkdir({str(folder)!r})\n")
    rewritten(archive, ATTACKS[attack](folder, f"__import__('os').mkdir({str(folder)!r})"))
    if attack == "guard":  # which is left out
        loaded = load(str(archive))
        assert loaded.inputs is not None
        loaded.model(*loaded.inputs.args, **loaded.inputs.kwargs)
    else:
        with pytest.raises(LoadError) as refused:
            load(str(archive))
        assert "--trust-pickle" in refused.value.hint
        assert "\n" not in refused.value.reason
    assert not folder.exists()


def test_a_key_of_the_example_inputs_is_no_code(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ran"
    rewritten(archive, other_key(f'scale", __import__("os").mkdir({str(folder)!r})) #'))
    load(str(archive))
    assert not folder.exists()


def test_a_compiled_library_is_not_loaded(archive: Path) -> None:
    rewritten(archive, lambda members: members.update({"data/aotinductor/model/wrapper.so": b"ELF"}))
    with pytest.raises(LoadError, match="holds a compiled library"):
        load(str(archive))


def test_an_archive_nested_too_deeply(archive: Path) -> None:
    rewritten(archive, lambda members: members.update({"models/model.json": b'{"a":' * 100_000 + b"0" + b"}" * 100_000}))
    with pytest.raises(LoadError, match="nested too deeply"):
        load(str(archive))


class Kind(enum.Enum):
    """A key that torch finds by importing its module."""

    WIDE = 1


class Everything(nn.Module):
    """What torch.export writes: layers under odd keys, buffers, branches, data-dependent sizes, structures."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"to-mid 1/2": nn.Linear(4, 4), "out": nn.Linear(4, 4)})
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(1))
        self.constant = torch.ones(4)

    def forward(self, x: torch.Tensor, pair: dict[str, list[torch.Tensor]], *, reduce: str = "sum", k: Any = None) -> Any:
        y = self.layers["to-mid 1/2"](x) + self.constant
        self.calls.add_(1)
        with torch.no_grad():
            z = y * 2
        y = torch.cond(y.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (y,))
        y = self.layers["out"](y).reshape(x.shape[0] * 2, -1)
        weights = torch.einsum("ij,kj->ik", y, y) / x.shape[0]
        return {"out": y[: x.shape[0] - 1] + pair["q"][0].mean(), "where it is": (x > 0).nonzero(), "e": weights}, z + k["a key"]


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    shapes = {"x": {0: torch.export.Dim("rows", min=3, max=64)}, "pair": {"q": [None]}, "reduce": None, "k": {"a key": None}}
    kwargs = {"reduce": "mean", "k": {"a key": torch.ones(4)}}
    export(Everything(), (torch.ones(6, 4), {"q": [torch.ones(2)]}), tmp_path / "all.pt2", kwargs=kwargs, dynamic_shapes=shapes)
    loaded = load(str(tmp_path / "all.pt2"))
    assert loaded.inputs is not None
    (said, _) = loaded.model(*loaded.inputs.args, **loaded.inputs.kwargs)
    assert set(said) == {"out", "where it is", "e"}


@pytest.mark.parametrize("batch", [2, 7])
def test_an_archive_is_analysed_on_other_sizes(archive: Path, batch: int) -> None:
    model = load(str(archive)).model
    report = analyze(model, Inputs((torch.ones(batch, 3),), {"more": {"scale": torch.ones(2)}}))
    assert dict(report.verdicts) == {"a.weight": "flows", "a.bias": "flows"}


def test_a_size_that_the_program_does_not_take(archive: Path) -> None:
    model = load(str(archive)).model
    report = analyze(model, Inputs((torch.ones(65, 3),), {"more": {"scale": torch.ones(2)}}))
    assert set(report.verdicts.values()) == {"blocked"}


@pytest.mark.parametrize(
    ("target", "is_one"),
    [
        ("torch.ops.aten.linear.default", True),
        ("torch.ops.higher_order.cond", True),
        ("_operator.floordiv", True),
        ("torch.sym_min", True),
        ("math.floor", True),
        ("torch._functorch.predispatch._vmap_increment_nesting", True),
        ("torch._functorch.predispatch.contextlib", False),
        ("torch.ops.aten.from_file.default", False),
        ("torch.ops.image.write_file.default", False),
        ("torch.ops.higher_order.aoti_call_delegate", False),
        ("torch.ops.load_library", False),
        ("_operator.attrgetter", False),
        ("_operator.call", False),
        ("torch.hub.load", False),
        ("#mine:op", False),
        ("os.system", False),
    ],
)
def test_operators_are_those_on_tensors_and_numbers(target: str, is_one: bool) -> None:
    assert is_operator(target) is is_one


def test_an_enum_as_a_key_needs_trust(tmp_path: Path) -> None:
    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: dict[Kind, torch.Tensor]) -> torch.Tensor:
            result: torch.Tensor = self.a(x[Kind.WIDE])
            return result

    export(Keyed(), ({Kind.WIDE: torch.ones(2, 3)},), tmp_path / "net.pt2")
    found = not_plain(str(tmp_path / "net.pt2"))
    assert found is not None
    assert "where a structure of plain types should stand" in found
