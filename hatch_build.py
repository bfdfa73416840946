"""Compile the C files of zeropoint.native into one library, if there is a C compiler; without one, numpy and PyTorch do their work."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# No contraction: a fused multiply-add rounds once where numpy rounds twice, and both must give the same bits.
# No trap: nobody asks which comparison met NaN, and GCC compares one number at a time to tell.
FLAGS = ("-O3", "-std=c99", "-ffp-contract=off", "-fno-trapping-math", "-shared", "-fPIC")
SLOWER = "counting values will take three times as long, training with quantization twice"
LIBRARY = Path("zeropoint", "native", "kernels.so")


class CompileKernels(BuildHookInterface[Any]):
    """Runs before a wheel is put together: an editable one finds the library beside its sources, another one takes it in."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell the wheel what it now holds and which machines it is for."""
        if self.target_name != "wheel":
            return
        sources = Path(self.root, "src")
        self._scratch = tempfile.mkdtemp(prefix="zeropoint-")
        library = sources / LIBRARY if version == "editable" else Path(self._scratch, LIBRARY.name)
        library.unlink(missing_ok=True)  # where nothing new can be compiled, an old one must not run
        if self._compile((sources / LIBRARY).parent, library) and version != "editable":
            build_data["force_include"][str(library)] = str(LIBRARY)
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled for a wheel, which holds it now."""
        if self.target_name == "wheel":
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _compile(self, folder: Path, library: Path) -> bool:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if not compiler or shutil.which(compiler[0]) is None:
            self.app.display_warning(f"no C compiler was found (CC names one): {SLOWER}")
            return False
        fresh = Path(self._scratch, "fresh.so")  # and then moved: a process may have the old one open
        command = [*compiler, *FLAGS, *map(str, sorted(folder.glob("*.c"))), "-o", str(fresh), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.app.display_warning(f"{shlex.join(command)} failed, {SLOWER}: {done.stderr}")
            return False
        shutil.move(fresh, library)
        return True
