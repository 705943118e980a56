"""The pictures of the README, into benchmarks/pictures/: `python -m benchmarks.pictures [NAME ...]`.

terminal: `guardrail demo` as an animated SVG. report: the page of `results/cpu.json`. dashboard: of a server
around the built-in model, after some requests. The last two are taken with chromium.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

from rich.color import Color
from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parent / "pictures"
RESULTS = Path(__file__).parent / "results" / "cpu.json"
COLUMNS, ROWS, LINE, LETTER = 100, 30, 17, 7.83
PAUSE_S, END_S = 0.22, 6.0
INK, GROUND = "#e6eaee", "#14181d"
BRIGHT = ("#8f99a3", "#ff9d6b", "#57d3a9", "#f0c364", "#6db5ea", "#dd9dc0", "#7cc6f0", INK)
NAMED = {number: BRIGHT[number % 8] for number in range(16)}
CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


def main() -> None:
    """Make the pictures that are named, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        path = PICTURES[name]()
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


def terminal() -> Path:
    """The tour of the built-in model."""
    command = [sys.executable, "-c", "from guardrail.cli import main; main()", "demo"]
    lines = [Text.from_ansi(line) for line in _typed(command).splitlines()]
    path = FOLDER / "demo.svg"
    path.write_text(_animated([Text("$ guardrail demo"), Text(""), *lines]), encoding="utf-8")
    return path


def _typed(command: list[str]) -> str:
    """What a command prints on a terminal."""
    own, other = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color"}
    running = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=other, stderr=subprocess.DEVNULL, env=os.environ | size
    )
    os.close(other)
    text = b"".join(_read(own)).decode("utf-8", "replace")
    if running.wait():
        raise SystemExit(f"{command}: exit code {running.returncode}")
    return text.replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # what Linux says when the other side is closed
            return
        if not part:
            return
        yield part


def _animated(lines: list[Text]) -> str:
    """Lines that come one after another, and scroll; without motion, the last of them."""
    steps = len(lines)
    total = steps * PAUSE_S + END_S
    moves = "".join(
        f"{100 * i * PAUSE_S / total:.2f}%{{transform:translateY({(ROWS - 1 - i) * LINE}px)}}"
        for i in range(steps)
    )
    end = f"translateY({(ROWS - steps) * LINE}px)"
    width, height = COLUMNS * LETTER + 24, ROWS * LINE + 24
    body = "".join(_line(line, i) for i, line in enumerate(lines))
    style = (
        f'text{{font:13px ui-monospace,"DejaVu Sans Mono",Menlo,monospace;fill:{INK};white-space:pre}}'
        f"g{{transform:{end};animation:s {total:.1f}s step-end infinite}}"
        f"@keyframes s{{{moves}100%{{transform:{end}}}}}"
        "@media (prefers-reduced-motion:reduce){g{animation:none}}"
    )
    head = f'viewBox="0 0 {width:.0f} {height}" role="img" aria-label="guardrail demo in a terminal"'
    window = f'x="12" y="12" width="{width - 24:.0f}" height="{ROWS * LINE}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {head}><style>{style}</style>'
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>'
        f"<svg {window}><g>{body}</g></svg></svg>\n"
    )


def _line(line: Text, number: int) -> str:
    spans = "".join(_span(text, style) for text, style in _spans(line))
    return f'<text y="{number * LINE + 13}" xml:space="preserve">{spans}</text>' if line.plain.strip() else ""


def _spans(line: Text) -> Iterator[tuple[str, str]]:
    console = Console(width=400, color_system="truecolor", force_terminal=True)
    for part in line.render(console):
        style = part.style
        if not part.text or part.text == "\n":
            continue
        colour = style.color if style else None
        told = f' fill="{_hex(colour)}"' if colour is not None and not colour.is_default else ""
        told += ' font-weight="bold"' if style and style.bold else ""
        yield part.text, told


def _hex(colour: Color) -> str:
    """The 16 colours of terminals as in the dark pages; others as they are."""
    return NAMED.get(colour.number) or colour.get_truecolor().hex


def _span(text: str, told: str) -> str:
    return f"<tspan{told}>{escape(text)}</tspan>" if told else escape(text)


def report() -> Path:
    """The page of the benchmark on a CPU."""
    from guardrail.bench.results import read
    from guardrail.report.bench import page

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "report.html"
        page(read(RESULTS)).write(made)
        return _photographed(made.as_uri(), FOLDER / "report.png", 1000, 900)


def dashboard() -> Path:
    """The dashboard after the prompts of the tour, some of them in several conversations."""
    from guardrail import Guard
    from guardrail.cli.demo.tour import TOUR
    from guardrail.demo import material
    from guardrail.files.yaml import read_document
    from guardrail.policy.loading import default_policies
    from guardrail.serve.app import create_app
    from guardrail.serve.settings import ServerSettings

    with tempfile.TemporaryDirectory() as folder:
        sink = {"sqlite": f"{folder}/audit.sqlite"}
        content = read_document(default_policies("demo")).data | {"audit": sink}
        os.environ["GUARDRAIL_REVIEW_QUEUE"] = f"{folder}/queue.sqlite"
        with Guard.from_pretrained("demo", content) as guard:
            benign = [one.messages for one in material.benign(7, 120, "test")]
            guard.check_many(benign)
            for prompt in TOUR:
                guard.chat(prompt.messages, max_new_tokens=16, temperature=0)
            return _served(create_app(guard, ServerSettings(port=0)), FOLDER / "dashboard.png")


def _served(app, path: Path) -> Path:
    import threading
    import time

    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        return _photographed(f"http://127.0.0.1:{port}/", path, 1200, 1000)
    finally:
        server.should_exit = True
        thread.join(10)


def _photographed(url: str, path: Path, width: int, height: int) -> Path:
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={width},{height}"
        command = [*CHROMIUM, f"--user-data-dir={profile}", size, f"--screenshot={path}", url]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path


PICTURES: dict[str, Callable[[], Path]] = {"terminal": terminal, "report": report, "dashboard": dashboard}

if __name__ == "__main__":
    main()
