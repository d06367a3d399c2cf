"""The golden files' command: what it writes, what its check finds. The numbers are tested elsewhere."""

import functools
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glm2_reference import golden
from glm2_reference.golden_subjects import SUBJECTS

COMMITTED = Path(__file__).parents[1] / "golden" / "reference"
FILES = [f"{name}.npz" for name in SUBJECTS]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def load(path):
    with np.load(path) as arrays:
        return dict(arrays)


def run(*arguments, **options):
    command = [sys.executable, "-W", "error", "-m", "glm2_reference.golden", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goldens") / "made" / "on the way"
    golden.write_goldens(folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "goldens"))


def change_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def change_array(folder, file, name, change):
    arrays = load(folder / file)
    arrays[name] = change(arrays[name])
    np.savez(folder / file, **arrays)


def describe_again(folder):
    """Make the manifest true of what the folder holds, as another machine would have written it."""

    def change(manifest):
        for file, entry in manifest["files"].items():
            data = (folder / file).read_bytes()
            entry["sha256"] = hashlib.sha256(data).hexdigest()
            for name, array in load(folder / file).items():
                sha256 = hashlib.sha256(array.tobytes()).hexdigest()
                shape, dtype = list(array.shape), array.dtype.name
                entry["arrays"][name] = {"shape": shape, "dtype": dtype, "sha256": sha256}

    change_manifest(folder, change)


# ---- writing ------------------------------------------------------------------------------------


def test_manifest_describes_every_file(written):
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["command"] == "python -m glm2_reference.golden FOLDER"
    assert list(manifest["files"]) == FILES
    assert sorted(path.name for path in written.iterdir()) == sorted([*FILES, "manifest.json"])
    for file, entry in manifest["files"].items():
        subject = SUBJECTS[Path(file).stem]
        assert entry["seed"] == subject.seed
        assert entry["made_by"] == subject.made_by
        assert entry["calls"] == list(subject.calls)
        assert entry["sha256"] == hashlib.sha256((written / file).read_bytes()).hexdigest()
        arrays = load(written / file)
        assert list(entry["arrays"]) == list(arrays)
        for name, array in arrays.items():
            assert array.dtype.byteorder in "<=|"
            assert entry["arrays"][name] == {
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
            }


def test_two_runs_write_the_same_bytes(written, tmp_path):
    """The second one in another process, with another hash seed and over older files."""
    for file in [*FILES, "manifest.json"]:
        (tmp_path / file).write_bytes(b"old")
    done = run(tmp_path, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(tmp_path / file) for file in [*FILES, "manifest.json"]]
    assert contents(tmp_path) == contents(written)


def test_files_are_small(written):
    for folder in (written, COMMITTED):
        sizes = [path.stat().st_size for path in folder.glob("*.npz")]
        assert max(sizes) < 200_000
        assert sum(sizes) < 700_000


def test_other_files_stay(folder):
    (folder / "notes.txt").write_text("mine")
    golden.write_goldens(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_interrupted_write_leaves_the_old_file(folder, monkeypatch):
    before = contents(folder)

    def fail(_, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        golden.write_goldens(folder)
    assert contents(folder) == before


# ---- what the subjects hold ---------------------------------------------------------------------


@pytest.mark.parametrize("name", SUBJECTS)
def test_subject_names_its_arrays_and_the_functions_it_calls(name):
    subject = SUBJECTS[name]
    assert subject.made_by.endswith(".")
    for call in subject.calls:
        module, _, function = call.partition(".")
        imported = importlib.import_module(f"glm2_reference.{module}")
        assert callable(functools.reduce(getattr, function.split("."), imported))
    arrays = subject.make(np.random.default_rng(subject.seed))
    assert any(".out." in key for key in arrays)
    for key, array in arrays.items():
        assert key.count(".in.") + key.count(".out.") == 1, key
        assert not array.dtype.hasobject
        if ".golden_" in key and array.dtype.kind == "f":
            assert array.dtype == np.float64, key


def test_seeds_differ():
    assert len({subject.seed for subject in SUBJECTS.values()}) == len(SUBJECTS)


# ---- checking -----------------------------------------------------------------------------------


def test_check_passes_on_the_committed_files():
    assert golden.check_goldens(COMMITTED) == []


def test_check_passes_from_the_command_line(written):
    before = contents(written)
    done = run(written, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(SUBJECTS)} golden files are what the reference makes\n"
    assert contents(written) == before


ALTERED = {
    "input": ("linear_float32.in.x", lambda x: np.nextafter(x, np.float32(9))),
    "float32 output": ("linear_float32.out.out", lambda x: x + np.float32(3e-5) * abs(x).max()),
    "float64 output": ("linear_float32.out.golden_out", lambda x: x + 3e-10 * abs(x).max()),
    "float16 output": ("linear_float16.out.out", lambda x: x + np.float16(3e-3) * abs(x).max()),
    "one NaN": ("softmax_float32.out.out", lambda x: np.where(x == x.max(), np.float32("nan"), x)),
    "dtype": ("softmax_float32.out.out", lambda x: x.astype(np.float64)),
    "shape": ("softmax_float32.out.out", lambda x: x[:-1]),
}


@pytest.mark.parametrize("alteration", ALTERED)
@pytest.mark.parametrize("described", [False, True], ids=["stale manifest", "true manifest"])
def test_check_names_the_file_and_the_array_that_was_altered(folder, alteration, described):
    name, change = ALTERED[alteration]
    change_array(folder, "layers.npz", name, change)
    if described:
        describe_again(folder)
    problems = golden.check_goldens(folder)
    assert problems
    assert all(problem.startswith("layers.npz: ") for problem in problems)
    about = [problem for problem in problems if problem.startswith(f"layers.npz: array {name} ")]
    assert len(about) == (1 if described else 2)
    assert len(problems) == (1 if described else 3)  # the file's own sha256 besides


def test_check_finds_altered_integers(folder):
    name = "model.out.greedy_ids"
    change_array(folder, "model.npz", name, lambda ids: ids ^ 1)
    describe_again(folder)
    wanted = "is not, bit for bit, what the reference makes; inputs and integers must be"
    assert golden.check_goldens(folder) == [f"model.npz: array {name} {wanted}"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("layers.npz", "linear_float32.out.out"),
        ("layers.npz", "linear_float16.out.out"),
        ("layers.npz", "linear_float32.out.golden_out"),
        ("flash_attention.npz", "float16.out.lse"),  # rows that see nothing are -inf
    ],
)
def test_check_allows_an_output_that_another_machine_rounds(folder, file, name):
    change_array(folder, file, name, lambda x: np.nextafter(x, np.inf, where=np.isfinite(x), out=x))
    assert len(golden.check_goldens(folder)) == 2  # the manifest holds the old sha256
    describe_again(folder)
    assert golden.check_goldens(folder) == []


def test_check_finds_a_change_of_the_reference(written, monkeypatch):
    subject = SUBJECTS["adapters"]

    def make(rng):
        arrays = subject.make(rng)
        arrays["lora_float32.out.out"] = arrays["lora_float32.out.out"] * np.float32(1.001)
        arrays["extra.out.x"] = arrays.pop("prefix.out.prefix")
        return arrays

    changed = golden.Subject(seed=8, made_by="Else.", calls=subject.calls, make=make)
    monkeypatch.setitem(golden.SUBJECTS, "adapters", changed)
    found = "\n".join(golden.check_goldens(written))
    assert "adapters.npz: manifest.json says seed is 108; expected 8" in found
    assert "adapters.npz: manifest.json says made_by is 'LoRA of rank 4" in found
    assert "adapters.npz: array lora_float32.in.x is not, bit for bit," in found
    assert "adapters.npz: array lora_float32.out.out differs from what the reference makes" in found
    assert "adapters.npz: array extra.out.x is missing" in found
    assert "adapters.npz: array prefix.out.prefix is not one that the reference makes" in found


def test_check_names_a_missing_file(folder):
    (folder / "rope.npz").unlink()
    assert golden.check_goldens(folder) == ["rope.npz: it is missing; write the golden files again"]
    done = run(folder, "--check")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "rope.npz: it is missing; write the golden files again\n"


def test_check_names_files_that_no_subject_writes(folder):
    np.savez(folder / "older.npz", x=np.zeros(3))
    change_manifest(folder, lambda manifest: manifest["files"].update({"gone.npz": {}}))
    assert golden.check_goldens(folder) == [
        f"{name}.npz: no subject writes it; remove it" for name in ("gone", "older")
    ]


DAMAGES = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "other bytes": lambda _: b"PK\x03\x04" + bytes(400),
    "a flipped byte": lambda data: data[:9000] + bytes([data[9000] ^ 255]) + data[9001:],
    "one array": lambda _: b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_a_damaged_file(folder, damage):
    path = folder / "rope.npz"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    (problem,) = golden.check_goldens(folder)
    assert problem.startswith("rope.npz: it cannot be read (")
    assert problem.endswith("; write the files again")


def test_check_never_unpickles(folder):
    np.savez(folder / "rope.npz", x=np.array([print], object))
    (problem,) = golden.check_goldens(folder)
    assert "rope.npz: it cannot be read (ValueError: Object arrays cannot be loaded" in problem


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", "[]", "{}", '{"files": []}'])
def test_check_names_a_damaged_manifest(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    problems = golden.check_goldens(folder)
    says = "it has no object `files`" if text[-1:] in ("]", "}") else "it is not valid JSON ("
    assert problems[0].startswith(f"manifest.json: {says}")
    assert problems[0].endswith("; write the golden files again")
    assert problems[1:] == [
        f"{file}: manifest.json has no entry with `arrays` for it; write the golden files again"
        for file in FILES
    ]


def test_check_names_a_missing_manifest(folder):
    (folder / "manifest.json").unlink()
    assert (
        golden.check_goldens(folder)[0]
        == "manifest.json: it is missing; write the golden files again"
    )


def test_check_names_what_the_manifest_says_wrongly(folder):
    def change(manifest):
        manifest["format"] = 2
        entry = manifest["files"]["rope.npz"]
        entry["seed"] = None
        entry["arrays"]["plain.in.x"]["shape"] = [1]
        entry["arrays"]["more.in.x"] = {}
        del entry["arrays"]["plain.in.positions"]
        manifest["files"]["model.npz"] = "text"

    change_manifest(folder, change)
    problems = golden.check_goldens(folder)
    assert problems[0] == ("manifest.json: format is 2; expected 1; write the golden files again")
    assert problems[1] == "rope.npz: manifest.json says seed is None; expected 102"
    assert problems[2] == "rope.npz: array more.in.x is None, but manifest.json says {}"
    assert problems[3].startswith("rope.npz: array plain.in.positions is {'shape': [6], ")
    assert problems[3].endswith("but manifest.json says None")
    assert "rope.npz: array plain.in.x is {'shape': [6, 3, 16]," in problems[4]
    assert problems[5].startswith("model.npz: manifest.json has no entry with `arrays`")
    assert len(problems) == 6


# ---- bad input ----------------------------------------------------------------------------------


def exit_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        golden.main([str(argument) for argument in arguments])
    return caught.value.code, capsys.readouterr().err


def test_bad_input_is_one_clear_line_and_status_2(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for arguments, message in (
        ([], "the following arguments are required: folder"),
        ([""], "FOLDER is empty; name the folder of the golden files"),
        ([file], f"{file} is a file; name a folder for the golden files"),
        ([file, "--check"], f"{file} is a file; name the folder that holds the golden files"),
        ([tmp_path / "no", "--check"], f"{tmp_path / 'no'} does not exist; name the folder that"),
        ([file / "below"], "Not a directory"),
        ([tmp_path, "--chek", "x"], "unrecognized arguments: --chek x"),
    ):
        code, error = exit_of(capsys, *arguments)
        assert code == 2
        assert message in error.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "mine"


def test_no_traceback_from_the_command_line(tmp_path):
    done = run(tmp_path / "no", "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
