"""Checkpoints of several gloo workers: any number reads what any number wrote, and one that fails fails all."""

import json
import os
from pathlib import Path

import pytest
import torch
from checkpoint_workers import GROUPS, STATE, whole
from forked import run_script
from safetensors import safe_open
from safetensors.torch import load_file

from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import export_checkpoint, newest_checkpoint

WRITTEN = ("alone", "two", "four", "two-by-two")
OUTCOMES = [
    (part.__name__, rank)
    for size, parts in GROUPS
    for part in parts
    for rank in range(size)
    if (part.__name__, rank) != ("the_first_is_killed", 0)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all groups of workers wrote."""
    path = tmp_path_factory.mktemp("sharded")
    run_script(Path(__file__).with_name("checkpoint_workers.py"), path, flags=("-W", "error::UserWarning"))
    return path


@pytest.mark.parametrize(("part", "rank"), OUTCOMES)
def test_a_worker(folder: Path, part: str, rank: int) -> None:
    assert (folder / f"{part}-{rank}.txt").read_text() == "ok"


def test_the_killed_worker_left_no_checkpoint(folder: Path) -> None:
    assert not (folder / "the_first_is_killed-0.txt").exists()
    assert sorted(os.listdir(folder / "two")) == [".epoch-000004", "epoch-000001", "epoch-000003"]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_lone_process_reads_what_any_number_wrote(folder: Path, written: str) -> None:
    found = newest_checkpoint(folder / written, Workers())
    assert found is not None
    assert found.state == STATE
    into = {name: torch.zeros_like(tensor) for name, tensor in whole().items()}
    found.read(into)
    for name, tensor in whole().items():
        assert_same_bits(into[name], tensor)


@pytest.mark.parametrize("written", WRITTEN)
def test_an_export_has_the_whole_tensors(folder: Path, written: str, tmp_path: Path) -> None:
    found = newest_checkpoint(folder / written, Workers())
    assert found is not None
    export_checkpoint(found, tmp_path / "all.safetensors")
    exported = load_file(tmp_path / "all.safetensors")
    assert exported.keys() == whole().keys()
    for name, tensor in whole().items():
        assert_same_bits(exported[name], tensor)
    with safe_open(tmp_path / "all.safetensors", "pt") as file:
        assert json.loads(file.metadata()["history"]) == STATE["history"]
    assert os.listdir(tmp_path) == ["all.safetensors"]


@pytest.mark.parametrize("written", WRITTEN)
def test_every_element_is_written_once(folder: Path, written: str) -> None:
    stored = 0
    for shard in (folder / written / "epoch-000001").glob("*.safetensors"):
        stored += sum(tensor.numel() for tensor in load_file(shard).values())
    assert stored == sum(tensor.numel() for tensor in whole().values())


def test_each_worker_writes_its_own_rows(folder: Path) -> None:
    shards = [load_file(folder / "four" / "epoch-000001" / f"shard-{rank:05d}.safetensors") for rank in range(4)]
    assert [len(shard["rows.uneven"]) for shard in shards] == [2, 2, 2, 1]
    assert [len(shard["rows.five"]) for shard in shards[:3]] == [2, 2, 1]


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    bits = [value.reshape(-1).contiguous().view(torch.uint8) for value in (found, expected)]
    assert torch.equal(*bits)
