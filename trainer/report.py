"""report.html: one self-contained page a run, written from the run's own files."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.sheet import encode_png
from trainer import log, plots
from trainer.recipe import Figure

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem }}
img {{ max-width: 100%; background: #fff; border-radius: 4px }} img.pixels {{ image-rendering: pixelated }}
figcaption, .quiet {{ color: #777; font-size: .9rem }} figure {{ margin: .6rem 0 }}
table {{ border-collapse: collapse }}
td {{ padding: .15rem 1.2rem .15rem 0; vertical-align: top }}
.numbers {{ display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1rem 0 }}
.numbers b {{ font-size: 1.7rem; display: block }}
pre {{ overflow: auto; background: #8881; padding: .8rem; border-radius: 4px }}
</style></head><body>
{body}
</body></html>
"""


def png(picture: Any) -> bytes:
    """A uint8 [H, W, 3] RGB array or a matplotlib figure as PNG bytes. A matplotlib figure is closed."""
    if isinstance(picture, np.ndarray):
        return encode_png(picture)
    picture.canvas.draw()
    pixels = np.asarray(picture.canvas.buffer_rgba())[:, :, :3]
    plots.close(picture)
    return encode_png(pixels)


def picture_html(title: str, caption: str, data: bytes, pixels: bool) -> str:
    """A section with one picture inside the page itself."""
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    return (f'<h2>{html.escape(title)}</h2><figure><img class="{"pixels" if pixels else ""}" src="{source}" '
            f'alt="{html.escape(title)}"><figcaption>{html.escape(caption)}</figcaption></figure>')  # fmt: skip


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, names joined by dots."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return out


def table(values: dict[str, Any]) -> str:
    """A two-column table of names and values; lists (whole curves) are left to the files."""

    def show(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    shown = {name: value for name, value in flat(values).items() if not isinstance(value, list)}
    rows = (f"<tr><td>{html.escape(n)}</td><td>{html.escape(show(v))}</td></tr>" for n, v in shown.items())
    return f"<table>{''.join(rows)}</table>"


def details(title: str, body: str) -> str:
    """A section that is folded until asked for."""
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def numbers(figures: dict[str, Any]) -> str:
    """A metric's figures, large."""
    values = {name: value for name, value in figures.items() if isinstance(value, float) and name != "kimg"}
    boxes = (f"<div><b>{v:.3f}</b>{html.escape(n.replace('_', ' '))}</div>" for n, v in values.items())
    return f'<div class="numbers">{"".join(boxes)}</div>'


def write(path: Path, figures: Iterable[Figure]) -> Path:
    """Write figures/*.png and report.html of the run at `path`. Returns the page's path.

    Beside the recipe's figures it shows what the exported bundle made, where `generated/` (a folder written by
    `python -m runtime generate`) and `evaluation.json` (of `python -m runtime evaluate`) lie in the run.
    """
    history = log.history(path)
    options = json.loads((path / "options.json").read_text())
    metrics = {name.removeprefix("metric-"): lines[-1] for name, lines in history.items() if name.startswith("metric-")}
    timing = (history.get("timing") or [{}])[-1]
    kimg, minutes = timing.get("images", 0) / 1000, timing.get("cpu_seconds", 0) / 60

    sections = [
        f"<h1>{html.escape(path.name)}</h1>",
        f'<p class="quiet">recipe {html.escape(options["recipe"])}, seed {options["seed"]}, {kimg:.0f} kimg, '
        f"{minutes:.1f} CPU-minutes of training</p>",
    ]
    for name, last in metrics.items():
        sections.append(f"<h2>{html.escape(name)}</h2>{numbers(last)}")
    (path / "figures").mkdir(exist_ok=True)
    for figure in figures:
        data = png(figure.picture)
        (path / "figures" / f"{figure.name}.png").write_bytes(data)
        sections.append(picture_html(figure.title, figure.caption, data, isinstance(figure.picture, np.ndarray)))
    sections += bundle_sections(path)
    for name, last in metrics.items():
        sections.append(details(f"{name}: the last evaluation and its protocol", table(last)))
    sections.append(details("Options", f"<pre>{html.escape(json.dumps(options, indent=2))}</pre>"))
    page = path / "report.html"
    log.write_text(page, PAGE.format(title=html.escape(path.name), body="\n".join(sections)))
    return page


def bundle_sections(path: Path) -> list[str]:
    """What the exported bundle made without PyTorch, if the run's folder holds it."""
    sections = []
    for sheet in sorted((path / "generated").glob("sheet*.png")):
        caption = "The ONNX graph, run in a process without PyTorch."
        sections.append(picture_html("Generated by the exported bundle", caption, sheet.read_bytes(), True))
    try:
        scores = json.loads((path / "evaluation.json").read_text())
    except (OSError, ValueError):  # there is none, or what wrote it was stopped
        scores = None
    if scores:
        sections.append("<h2>The exported bundle's scores</h2>" + table(scores))
    return sections
