"""How work is cut: everything is somewhere, once."""

from collections import Counter

import pytest
import torch

from bbh_dist.sharding import ALONE, SampleShare, Workers, part

NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 20, 63, 64, 65]


@pytest.mark.parametrize("total", NUMBERS)
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 8, 64])
def test_parts_cover_everything_once_as_chunks_do(total: int, parts: int) -> None:
    found = [part(total, parts, index) for index in range(parts)]
    assert [index for one in found for index in one] == list(range(total))
    chunks = [chunk.tolist() for chunk in torch.arange(total).chunk(parts)]
    chunks += [[]] * (parts - len(chunks))
    assert [list(one) for one in found] == chunks


@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 8])
def test_groups_of_workers_share_all_samples_alike(count: int, workers: int) -> None:
    shares = [SampleShare.among(count, workers, rank) for rank in range(workers)]
    groups = shares[0].groups
    assert {share.groups for share in shares} == {groups}
    assert count % groups == workers % groups == 0
    assert all(count % more or workers % more for more in range(groups + 1, count + 1))
    seen = Counter(sample for share in shares for sample in share.own)
    assert seen == dict.fromkeys(range(count), workers // groups)
    assert {len(share.own) for share in shares} == {count // groups}


def test_the_share_of_another_worker() -> None:
    share = SampleShare.among(6, 2, 5)
    assert (share.groups, share.own) == (2, range(3, 6))
    assert [share.of(index) for index in (-1, 0, 1, 2)] == [range(3, 6), range(3), range(3, 6), range(3)]
    assert SampleShare(5).own == SampleShare(5).of(3) == range(5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("examples", [0, 1, 2, 11, 12])
@pytest.mark.parametrize("splittable", [True, False])
def test_every_pair_of_sample_and_example_belongs_to_one_worker(
    size: int, count: int, examples: int, splittable: bool
) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    lengths = []
    for rank in range(size):
        workers = Workers(rank, size)
        share = workers.samples(count, splittable=splittable)
        assert splittable or share.own == range(count)
        own = workers.examples(examples, share)
        lengths.append(len(own))
        seen.update((sample, example) for sample in share.own for example in own)
    assert seen == {(sample, example): 1 for sample in range(count) for example in range(examples)}
    assert max(lengths) - min(lengths) <= 1


def test_alone_every_operation_is_empty() -> None:
    rows = [torch.randn(4, 3), torch.randn(4, 0)]
    lengths = [[3, 0]]
    assert all(found is whole for found, whole in zip(ALONE.weights(rows, lengths), rows, strict=True))
    some = ALONE.weights(rows, lengths, SampleShare(2))
    assert [torch.equal(found, whole[:2]) for found, whole in zip(some, rows, strict=True)] == [True, True]
    assert ALONE.sum(rows[0]) is rows[0]
    assert ALONE.part(7) == range(7)
    alone = Workers()
    assert alone.sum(rows[0]) is rows[0]
    assert alone.all.exchange([rows[0]], [12], "x").wait()[0].tolist() == rows[0].flatten().tolist()
    alone.wait()
    assert alone.is_first
    assert alone.sharded(rows[0], 4) is rows[0]
    assert not alone.traffic
