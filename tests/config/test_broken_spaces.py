from pathlib import Path

import pytest
from broken_spaces import BROKEN, VALID

from bbh_dist.config import ConfigError, load_space


def test_the_file_from_which_all_are_spoiled_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(VALID)
    assert load_space(path).trials == 4


def test_names_of_cases_are_unique() -> None:
    names = [name for name, _, _ in BROKEN]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("raw", "fragments"), [pytest.param(*case[1:], id=case[0]) for case in BROKEN])
def test_one_mistake_makes_one_placed_line(tmp_path: Path, raw: bytes, fragments: tuple[str, ...]) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load_space(path)
    assert len(caught.value.mistakes) == 1, str(caught.value)
    line = str(caught.value)
    assert line.startswith(f"{path}:")
    assert line.isprintable()
    for fragment in fragments:
        assert fragment in line
