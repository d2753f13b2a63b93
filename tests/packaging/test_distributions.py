"""What is built is whole: every room, the migrations, the type marker; and it runs where only the wheel is installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOMS, ROOT, build


def python_files() -> set[str]:
    """The package's files as an import would find them: `fairlead/...`, through the links."""
    package = ROOT / "src" / "fairlead"
    places = [package, *(package / room for room in ROOMS)]
    files = {file for place in places for file in place.rglob("*.py")}
    return {"fairlead/" + file.relative_to(package).as_posix() for file in files}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that has the wheel, and borrows its dependencies from the one the tests run in."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    [packages] = place.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files are not read: our editable install stays out of sight.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


def test_the_wheel_holds_every_python_file_of_the_package(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert held == python_files()


def test_the_wheel_holds_the_type_marker_and_the_licence(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    assert "fairlead/py.typed" in held
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_the_wheel_holds_the_migrations(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("fairlead/runtime/store/") and "/versions/" in name for name in held), held


def test_a_wheel_built_from_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    result = build("wheel", unpacked, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    [again] = (tmp_path / "out").glob("*.whl")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_the_installed_wheel_imports_from_itself(installed: Path, tmp_path: Path) -> None:
    code = "import fairlead, fairlead.runtime.store, fairlead.graphs; print(fairlead.__file__)"
    result = subprocess.run(
        [installed / "python", "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(installed.parent)


def test_every_public_name_of_the_installed_wheel_can_be_had(installed: Path, tmp_path: Path) -> None:
    code = "import fairlead; print(len([getattr(fairlead, name) for name in fairlead.__all__]))"
    result = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0


def test_the_installed_command_tells_its_version(installed: Path, tmp_path: Path) -> None:
    result = subprocess.run([installed / "fairlead", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "0.1.0" in result.stdout
