"""Contestants take turns, and ratios are those within rounds."""

from bbh_dist.speed.timing import alternate, ratio, summary


def test_contestants_take_turns_after_a_warm_up() -> None:
    seen: list[str] = []
    runs = {name: lambda name=name: float(seen.append(name) or len(seen)) for name in "ab"}
    times = alternate(runs, rounds=2, turn=2, warm_up=1)
    assert "".join(seen) == "ab" + "aabb" * 2
    assert times == {"a": [[3, 4], [7, 8]], "b": [[5, 6], [9, 10]]}


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    reference = [[1.0, 1.0], [10.0, 10.0], [100.0, 100.0]]
    assert ratio([[3.0, 3.0], [30.0, 30.0], [300.0, 300.0]], reference) == 3
    assert ratio([[3.0, 3.0], [30.0, 9000.0], [300.0, 300.0]], reference) == 3


def test_summary() -> None:
    assert summary([[4.0, 1.0], [2.0]]) == {"median": 2.0, "min": 1.0, "max": 4.0, "runs": 3}
