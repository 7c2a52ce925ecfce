"""The stories of `scenarios/*.txt` go as they are told."""

from pathlib import Path

import pytest

from tests.machine.story import run

STORIES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_told(path):
    run(path)
