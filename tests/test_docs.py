"""What the pages tell users to write: commands that exist, recipes that are recipes."""

import re
import shlex

import pytest
import yaml

from timeloom import cli, recipes
from timeloom.data.command import ViewOptions
from timeloom.data.sources import DataOptions
from timeloom.evaluate import protocols
from timeloom.evaluate.command import Options as EvaluateOptions
from timeloom.evaluate.compare import CompareOptions
from timeloom.evaluate.export import ExportOptions
from timeloom.model.command import ConvertOptions, InfoOptions
from timeloom.options import parse
from timeloom.schema import check
from timeloom.train.command import TrainOptions
from timeloom.train.recipe import Recipe, load_recipe

PAGES = (
    "README.md",
    "docs/train.md",
    "docs/finetune.md",
    "docs/webvid.md",
    "docs/cluster.md",
    "docs/adapter.md",
    "docs/evaluate.md",
    "docs/swap.md",
)
OPTIONS = {
    ("data", "view"): ViewOptions,
    ("model", "convert"): ConvertOptions,
    ("model", "info"): InfoOptions,
    ("evaluate", "compare"): CompareOptions,
    ("evaluate", "export"): ExportOptions,
}


@pytest.fixture(params=PAGES)
def blocks(request, project):
    """The indented blocks of a page."""
    text = (project / request.param).read_text(encoding="utf-8")
    found = re.findall(r"(?:^ {4}.*\n(?:[ \t]*\n(?= {4}))*)+", text, re.MULTILINE)
    assert found
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in found]


def commands(blocks):
    """The words of each command in the blocks, after `timeloom`; lines may begin with a prompt or torchrun's words."""
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            said = re.match(r"(?:\$ )?(?:(?:srun )?torchrun .*-m )?timeloom (.*)", line)
            if said:
                yield shlex.split(said[1], comments=True)


def test_commands_exist_and_take_these_options(blocks, tmp_path):
    for verb, *words in commands(blocks):
        assert verb in cli.VERBS
        if (options := OPTIONS.get((verb, *words[:1]))) is not None:
            parse(options, words[1:], prog="timeloom")
        elif verb == "evaluate" and words[0].startswith("--"):
            protocols.find(parse(EvaluateOptions, words, prog="timeloom").protocol)
        elif verb == "train":
            said = parse(TrainOptions, words, prog="timeloom")
            if said.recipe != "RECIPE" and "/" in said.recipe:
                load_recipe(recipes.find(said.recipe), said.set)


def test_recipes_on_pages_are_recipes(blocks, project):
    for block in blocks:
        if re.search(r"^task:", block, re.MULTILINE):
            assert check(Recipe, yaml.safe_load(block), project).task == "video"
        elif block.startswith("data:"):
            assert check(DataOptions, yaml.safe_load(block)["data"], project).num_frames == 16


def test_the_pages_have_such_things(project):
    text = "".join((project / page).read_text(encoding="utf-8") for page in PAGES)
    assert text.count("\n    task:") == 1 and text.count("\n    data:\n") == 1 and text.count("torchrun ") >= 4


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page, project):
    text = (project / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((project / page).parent / target).exists(), target
