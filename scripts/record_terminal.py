"""Record what `zeropoint quantize` shows in a terminal, as docs/images/quantize.svg.

    make recording

The command is run for real, in a terminal of 80 columns, on the network and the digits that the package ships. The latency in the
picture is that of the machine that recorded it. The picture names no web font and nothing else to fetch.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import struct
import sys
import termios
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.text import Text

from zeropoint.demo import load_digits

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "quantize.svg"
COLUMNS, ROWS = 80, 40
COMMAND = (
    "zeropoint quantize digits.onnx --data digits.npy --target onnxruntime",
    "    --eval-data test.npy --labels labels.npy",
)
# A terminal's controls, as far as progress bars use them: cursor up, erase line, and what is of no matter here.
CONTROL = re.compile(r"\x1b\[(?P<count>\d*)(?P<what>[AK])|(?P<skip>\x1b\[\?25[lh])|(?P<start>\r)|(?P<next>\n)")
FONTS = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono"'


def prepare(folder: Path) -> None:
    """Write the files that the command names."""
    digits = load_digits()
    shutil.copy(digits.model, folder / "digits.onnx")
    np.save(folder / "digits.npy", digits.calibration)
    np.save(folder / "test.npy", digits.test)
    np.save(folder / "labels.npy", digits.test_labels)


def run_in_terminal(command: list[str], folder: Path) -> str:
    """Return all that a command writes to a terminal, which it takes for one that people look at."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            os.environ.pop(name, None)
        os.execvp(command[0], command)
    written = io.BytesIO()
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        written.write(piece)
    _, status = os.waitpid(child, 0)
    text = written.getvalue().decode()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{shlex.join(command)} failed:\n{text}")
    return text


def last_screen(text: str) -> str:
    """Return what is left on the screen in the end, colours included: bars that were drawn over are gone."""
    lines, row = [""], 0
    position = 0
    for control in CONTROL.finditer(text):
        lines[row] += text[position : control.start()]
        position = control.end()
        if control["next"]:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control["what"] == "A":
            row = max(0, row - int(control["count"] or 1))
        elif control["what"] == "K":
            lines[row] = ""
    lines[row] += text[position:]
    return "\n".join(lines).rstrip()


def draw(screen: str) -> str:
    """Return the command and its screen as an SVG picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(" \\\n".join((f"$ {COMMAND[0]}", COMMAND[1])), style="bold"))
    console.print(Text.from_ansi(screen), end="\n\n")  # the picture cuts the last line's underscores off
    picture = console.export_svg(title="zeropoint", unique_id="quantize")
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    picture = re.sub(
        r"Fira Code|font-family: arial", lambda found: FONTS if found[0] == "Fira Code" else "font-family: sans-serif", picture
    )
    return picture.replace("<!-- Generated with Rich https://www.textualize.io -->\n", "")


def check(picture: str, folder: Path) -> None:
    """Refuse a picture that shows a path of this machine, or fetches something."""
    fetched = [address for address in re.findall(r"https?://[^\s\"')]+", picture) if address != "http://www.w3.org/2000/svg"]
    shown = [path for path in (str(folder), str(Path.home()), str(PICTURE.parents[2])) if path != "/" and path in picture]
    if fetched or shown:
        raise SystemExit(f"the picture must neither fetch {fetched} nor show {shown}")


def main() -> None:
    """Run the command and write the picture."""
    command = [str(Path(sys.executable).parent / "zeropoint"), *shlex.split(" ".join(COMMAND))[1:]]
    with TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        picture = draw(last_screen(run_in_terminal(command, folder)))
        check(picture, folder)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture, encoding="utf-8")
    print(PICTURE.relative_to(Path.cwd()) if PICTURE.is_relative_to(Path.cwd()) else PICTURE)


if __name__ == "__main__":
    main()
