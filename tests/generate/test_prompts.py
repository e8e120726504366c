import pytest

from timeloom.errors import TimeloomError
from timeloom.generate.prompts import PromptFile, read_prompts, require_prompt, slug, words_cut


def test_prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red seven\r\n\n  \n  ein grüner Käse \n".encode())
    assert read_prompts(path) == PromptFile(["a red seven", "ein grüner Käse"], blank_lines=2)


def test_a_hundred_thousand_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"number {i}" for i in range(100_000)))
    found = read_prompts(path)
    assert len(found.prompts) == 100_000
    assert found.prompts[-1] == "number 99999"


def test_what_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a red seven\nein gr\xfcner\n")
    with pytest.raises(TimeloomError, match=r"prompts\.txt is not UTF-8: line 2 has the byte 0xfc at position 7"):
        read_prompts(path)


@pytest.mark.parametrize(("content", "message"), [(b"\n\n", "2 blank"), (None, "Cannot read")])
def test_a_file_without_prompts(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TimeloomError, match=message):
        read_prompts(path)


def test_the_words_that_are_cut_are_the_words_that_the_tokenizer_leaves_out(tokenizer):
    # This tokenizer makes one token of a character.
    assert words_cut(tokenizer, "abcd efgh", max_tokens=10) == ""
    assert words_cut(tokenizer, "abcd efgh ij", max_tokens=10) == "ij"
    assert (
        words_cut(tokenizer, "abcd efgh ij", max_tokens=9) == "efgh ij"
    )  # "h" alone is cut, and so the word is damaged
    kept = tokenizer("abcd efgh ij", truncation=True, max_length=10).input_ids
    assert tokenizer.decode(kept, skip_special_tokens=True) == "abcd efgh"


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_an_empty_prompt(prompt):
    with pytest.raises(TimeloomError, match="prompt is empty"):
        require_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red seven moves left!", "a-red-seven-moves-left"),
        ("../../etc/passwd", "etc-passwd"),
        ("Käse: C\\O? <n>", "kase-c-o-n"),
        ("红色", "prompt"),
        ("x" * 500, "x" * 60),
    ],
)
def test_file_names_are_safe(prompt, name):
    assert slug(prompt) == name
