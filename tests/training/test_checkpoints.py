"""What a lone process saves comes back, without pickle. Several workers: test_sharded_checkpoints.py."""

import json
import os
from pathlib import Path

import pytest
import torch
from small_checkpoints import ALONE, SHARD, STATE, epoch_found, newest, save
from torch import Tensor

from bbh_dist.training.checkpoints import CheckpointError, save_checkpoint


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shared = torch.arange(12.0)
    tensors = {
        "transposed": torch.randn(3, 4, dtype=torch.float64).mT,
        "of no dimension": torch.tensor(7.0),
        "half": torch.randn(2, 3).bfloat16(),
        "whole numbers": torch.arange(3),
        "flags": torch.tensor([True, False]),
        "odd": torch.tensor([float("nan"), -0.0, float("inf")]),
        "empty": torch.empty(0, 3),
        "needs a gradient": torch.nn.Parameter(torch.ones(2)),
        "shared": shared,
        "shared.again": shared,
        "a row of shared": shared.view(3, 4)[1],
    }
    save_checkpoint(tmp_path, 5, tensors, STATE, ALONE)
    found = newest(tmp_path)
    assert found.state == STATE
    assert found.shapes == {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    into: dict[str, Tensor] = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    given = dict(into)
    found.read(into)
    for name, tensor in tensors.items():
        assert into[name] is given[name]
        torch.testing.assert_close(into[name], tensor.detach(), rtol=0, atol=0, equal_nan=True, check_stride=False)
    assert bool(into["odd"][1].signbit())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "into", [{"v": torch.zeros(3)}, {"w": torch.zeros(4)}, {"w": torch.zeros(3, dtype=torch.float64)}]
)
def test_what_is_not_stored_like_this_is_refused(tmp_path: Path, into: dict[str, Tensor]) -> None:
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"epoch-000001 cannot be read: (v is absent|w is \(torch.Size)"):
        newest(tmp_path).read(into)


def test_some_of_the_tensors_can_be_read_and_none_can_be_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.ones(2), "b": torch.zeros(3)}, STATE, ALONE)
    into = {"a": torch.zeros(2)}
    newest(tmp_path).read(into)
    assert into["a"].tolist() == [1, 1]
    save_checkpoint(tmp_path, 2, {}, STATE, ALONE)
    assert newest(tmp_path).shapes == {}
    newest(tmp_path).read({})


def test_the_newest_two_are_kept_in_the_order_of_numbers(tmp_path: Path) -> None:
    save(tmp_path, 9, 10, 999_999, 1_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-1000000", "epoch-999999"]
    assert epoch_found(tmp_path) == 1_000_000


def test_saving_an_epoch_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save_checkpoint(tmp_path, 1, {"w": torch.zeros(2)}, {"epoch": 1, "again": True}, ALONE)
    assert newest(tmp_path).state["again"]


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert sorted(os.listdir(path)) == [SHARD, "state.json"]
    assert json.loads((path / "state.json").read_text()).keys() == {"sha256", "files", "state"}
    header = (path / SHARD).read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["w"]["dtype"] == "F32"
