"""Video as an adapter: what clips teach one image model makes another one move, judged.

    python benchmarks/adapter.py                      # after digits/image_fine; two hours or so on two cores
    python benchmarks/adapter.py --num-prompts 32     # a first look; a longer run goes on from a shorter

Two image models are finetuned on *digits* of two styles that share no colour and no background. A LoRA is trained on
the first one, with clips of its style alone. Then each model is asked for clips of its own style with the adapter, and
the second one, as a control, with the temporal shift switched on and no change of the weights. The images that each
model makes of both styles stand beside it: if the adapter brought the first model's look along, the second model's
colours and backgrounds would suffer.

Everything runs through the commands, so running it again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from timeloom import __version__, cli, recipes
from timeloom.adapters import find_adapter
from timeloom.data.write import replace_file
from timeloom.train.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
IMAGE_RECIPES = {"A": "digits/image_style_a", "B": "digits/image_style_b"}
ADAPTER_RECIPE = "digits/video_adapter"
ROWS = (
    *(("A", "A", None), ("A", "B", None), ("B", "B", None), ("B", "A", None)),
    *(("A", "A", 1.0), ("B", "B", 1.0), ("B", "B", 0.0)),
)
"""(model, the style that it is asked for, how much of the adapter: None makes images)."""
MARKS = "<!-- benchmarks/adapter.py writes from here -->", "<!-- to here -->"
COLUMNS = {"digit": "digit", "colour": "colour", "background": "background", "motion": "motion", "all": "all of them"}


def main(args: list[str] | None = None) -> int:
    """Train, judge, and write the numbers."""
    options = parse(args)
    trained = {name: train(recipe, options.set_image) for name, recipe in IMAGE_RECIPES.items()}
    motion = train(ADAPTER_RECIPE, options.set_video)
    adapter = find_adapter(Path(motion.output) / "adapter")
    result = {
        "rows": [judge(trained, name, style, adapter, scale, options) for name, style, scale in ROWS],
        "styles": {name: recipe.data.style for name, recipe in trained.items()},
        "num_prompts": options.num_prompts,
        "adapter": {
            "bytes": adapter.stat().st_size,
            "rank": motion.model.lora.rank,
            "clips": motion.schedule.total_samples,
        },
        "images": {name: recipe.schedule.total_samples for name, recipe in trained.items()},
        "timeloom": __version__,
        "torch": str(torch.__version__),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    replace_file(options.results, json.dumps(result, indent=2).encode())
    table = draw_table(result)
    write_between_marks(options.page, table)
    print(table)
    return 0


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-prompts", type=int, default=128, help="prompts a row")
    parser.add_argument("--set-image", nargs="*", default=[], help="changes to the image models' recipes, as --set")
    parser.add_argument("--set-video", nargs="*", default=[], help="changes to the adapter's recipe, as --set")
    parser.add_argument("--clips", type=Path, default=Path("evaluations/adapter"), help="folder of what is generated")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "adapter.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "adapter.md", help="page that the table goes into")
    return parser.parse_args(args)


def run(*words: Any) -> None:
    """One command of `timeloom`."""
    told = [str(word) for word in words]
    print("timeloom", *told, flush=True)
    if code := cli.main(told):
        raise SystemExit(code)


def train(name: str, changes: list[str]) -> Recipe:
    """Train a recipe to its end, or find it there; the recipe."""
    run("train", name, *(["--set", *changes] if changes else []))
    return load_recipe(recipes.find(name), changes)


def judge(
    trained: dict[str, Recipe], name: str, style: str, adapter: Path, scale: float | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Clips of an image model asked for a style, the shift on, `scale` times the adapter in its weights; or images."""
    folder = options.clips / f"{'images' if scale is None else f'clips-{scale:g}'}-{name}-of-{style}"
    kind = ["--frames", 1] if scale is None else ["--adapter", adapter, "--adapter-scale", scale]
    asked = [word for option, names in trained[style].data.style.items() for word in (f"--{option}", *names)]
    model = Path(trained[name].output) / "model"
    run("evaluate", "--model", model, *kind, "--num-prompts", options.num_prompts, "--output", folder, *asked)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    kept = ("protocol", "protocol_sha256", "num_prompts", "judge", "model_right", "seconds")
    return {"model": name, "asked_for": style, "adapter_scale": scale, **{part: result[part] for part in kept}}


def draw_table(result: dict[str, Any]) -> str:
    """Shares right with 95 % intervals, as Markdown."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for row in result["rows"]:
        scale = row["adapter_scale"]
        what = "images" if scale is None else "clips with the adapter" if scale else "clips with the shift alone"
        cells = [tell(row["model_right"].get(metric)) for metric in COLUMNS]
        lines.append(f"| model {row['model']}, asked for style {row['asked_for']}: {what} | {' | '.join(cells)} |")
    adapter, images = result["adapter"], result["images"]
    styles = (
        f"Style {name}: {', '.join(style['colours'])} on {', '.join(style['backgrounds'])}."
        for name, style in result["styles"].items()
    )
    about = (
        f"{result['num_prompts']} prompts a row (for images, without those that spin), shares right in percent with "
        f"95 % intervals. {' '.join(styles)} "
        f"Image models finetuned on {' and '.join(f'{count:,}' for count in images.values())} images. The adapter, "
        f"rank {adapter['rank']}, trained on {adapter['clips']:,} clips of style A: {adapter['bytes'] / 1e6:.1f} MB. "
        f"Timeloom {result['timeloom']}, torch {result['torch']}, {result['machine']}."
    )
    return "\n".join([*lines, "", about])


def tell(share: dict[str, dict[str, Any]] | None) -> str:
    if share is None:
        return "–"
    low, high = share["all"]["interval"]
    return f"{100 * share['all']['value']:.0f} ({100 * low:.0f} – {100 * high:.0f})"


def write_between_marks(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    replace_file(page, f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}".encode())


if __name__ == "__main__":
    raise SystemExit(main())
