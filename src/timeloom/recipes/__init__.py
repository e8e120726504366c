"""The training runs that we stand behind, one YAML file each."""

from __future__ import annotations

from pathlib import Path

from timeloom.errors import unknown_name

RECIPES = Path(__file__).parent


def names() -> list[str]:
    """Names of the packaged recipes, such as "digits/video_shift", sorted."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def find(name_or_path: str | Path) -> Path:
    """The file of a recipe: a path that exists, else a packaged recipe by name.

    "recipes/digits/video_shift.yaml", "digits/video_shift.yaml" and "digits/video_shift" name the same packaged recipe.

    Raises:
        TimeloomError: no such file and no such name; the nearest name is suggested.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    if name not in names():
        raise unknown_name("recipe", name, names())
    return RECIPES / f"{name}.yaml"
