"""What raters are asked: the questions of either paper, or one's own.

# questions.yaml
questions:
  - name: smoothness
    text: In which video is the movement smoother?
  - name: faithfulness
    text: Which video matches the text better?
    show_prompt: true

The papers print which questions they asked, not in which words; the words are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from timeloom.errors import TimeloomError, unknown_name
from timeloom.schema import Schema, check, read_yaml

MOST_QUESTIONS = 10
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class Question(Schema):
    """One question about a pair of videos, answered by left, right, or no preference."""

    name: Name
    """Heading in tables."""
    text: Text
    """What the rater reads."""
    show_prompt: bool = False
    """Show the text that the videos were made from."""


class QuestionSet(Schema):
    """What a file of questions holds."""

    questions: tuple[Question, ...] = Field(min_length=1, max_length=MOST_QUESTIONS)

    @model_validator(mode="after")
    def _names_differ(self) -> QuestionSet:
        names = [question.name for question in self.questions]
        if len(set(names)) < len(names):
            raise ValueError("two questions have the same name")
        return self


TEXT_QUESTION = "Which video matches the text better?"
PAPERS = {
    "latent-shift": (
        Question(name="quality", text="Which video has the higher quality?"),
        Question(name="faithfulness", text=TEXT_QUESTION, show_prompt=True),
    ),
    "videofactory": (
        Question(name="quality", text="Which video has the higher quality?"),
        Question(name="text correlation", text=TEXT_QUESTION, show_prompt=True),
        Question(name="overall preference", text="Which video do you prefer overall?", show_prompt=True),
    ),
}


def find_questions(name: str) -> tuple[Question, ...]:
    """The questions of a paper, by its name, or of a YAML file.

    Raises:
        TimeloomError: neither, or the file is not as above.
    """
    if name in PAPERS:
        return PAPERS[name]
    path = Path(name)
    if not path.is_file():
        raise unknown_name("set of questions, and no such file:", name, PAPERS)
    return check(QuestionSet, read_yaml(path), path).questions


def require_prompts(questions: tuple[Question, ...], prompts: list[str | None]) -> None:
    """Raise TimeloomError where a question shows a text that is not known."""
    unknown = sum(prompt is None for prompt in prompts)
    asking = [question.name for question in questions if question.show_prompt]
    if unknown and asking:
        raise TimeloomError(
            f"The question {asking[0]!r} shows the prompt, and {unknown} of {len(prompts)} are not known. "
            "Give them by --prompts FILE (a line for each index), captions.csv, or a .txt beside each video."
        )
