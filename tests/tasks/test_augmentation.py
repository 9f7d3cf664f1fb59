"""Augmentation against loops over images in NumPy, and its independence of batches."""

import numpy as np
import pytest
import torch

from bbh_dist.noise import keyed_generator
from bbh_dist.tasks import Augmentation, Categorical, Split, Task
from bbh_dist.tasks.augmentation import standardised

EXAMPLES, SEED, EPOCH = 40, 5, 3
IMAGES = torch.randint(0, 256, (EXAMPLES, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
ALL = torch.arange(EXAMPLES)
AUGMENTATION = Augmentation()


def augmented(indices: torch.Tensor, seed: int = SEED, epoch: int = EPOCH) -> torch.Tensor:
    return AUGMENTATION.augmented(IMAGES[indices], indices[None], EXAMPLES, seed, epoch, torch.float64)


def by_hand(
    image: np.ndarray, row: float, column: float, flip: float, brightness: float, contrast: float
) -> np.ndarray:
    padded = np.zeros((3, 36, 36))
    padded[:, 2:34, 2:34] = image
    top, left = int(row * 13), int(column * 13)
    crop = padded[:, top : top + 24, left : left + 24]
    crop = crop[:, :, ::-1] if flip < 0.5 else crop
    crop = crop + (-63 + 126 * brightness)
    for channel in range(3):
        mean = crop[channel].mean()
        crop[channel] = (crop[channel] - mean) * (0.2 + 1.6 * contrast) + mean
    return (crop - crop.mean()) / max(crop.std(), 1 / np.sqrt(crop.size))


def test_every_image_goes_the_way_of_the_original() -> None:
    numbers = torch.rand(EXAMPLES, 5, generator=keyed_generator("augmentation", SEED, EPOCH)).double()
    numbers = numbers.numpy()
    expected = [by_hand(IMAGES[index].double().numpy(), *numbers[index]) for index in range(EXAMPLES)]
    # The changes are drawn in single precision.
    np.testing.assert_allclose(augmented(ALL).numpy(), np.stack(expected), rtol=1e-5, atol=1e-5)


def test_an_example_s_changes_do_not_depend_on_its_batch() -> None:
    whole = augmented(ALL)
    for indices in (ALL.flip(0), ALL[7:8], torch.tensor([3, 3, 39])):
        torch.testing.assert_close(augmented(indices), whole[indices], rtol=1e-12, atol=1e-12)
    assert augmented(ALL[:0]).shape == (0, 3, 24, 24)


@pytest.mark.parametrize("other", [{"seed": SEED + 1}, {"epoch": EPOCH + 1}])
def test_changes_differ_between_epochs_and_seeds(other: dict[str, int]) -> None:
    assert not torch.isclose(augmented(ALL), augmented(ALL, **other)).flatten(1).all(1).any()


def test_members_of_an_ensemble_have_changes_of_their_own() -> None:
    """The first has those of a model on its own; whoever holds some members gives them what all together have."""
    plain = Split(IMAGES.double(), ALL % 2)
    task = Task("images", Categorical(2), Split(IMAGES, ALL % 2), plain, plain, augmentation=AUGMENTATION)
    indices = torch.stack([ALL[:9], ALL[:9], ALL[9:18]])
    found = task.training_inputs(indices, SEED, EPOCH, range(3))
    assert torch.equal(found[0], augmented(indices[0]))
    assert not torch.isclose(found[0], found[1]).flatten(1).all(1).any()
    assert torch.equal(task.training_inputs(indices[1:], SEED, EPOCH, range(1, 3)), found[1:])
    assert torch.equal(task.training_inputs(indices[0], SEED, EPOCH), found[0])


def test_crops_and_flips_take_all_their_values() -> None:
    """Of 40,000 crops each row and column has 3,077 on average, standard deviation 53; 20,000 +- 100 are flipped."""
    tagged = torch.arange(1024, dtype=torch.int16).view(1, 1, 32, 32)
    numbers = torch.rand(40_000, 3, generator=keyed_generator("crops"))
    crops = Augmentation(channels=1)._cropped(tagged.expand(40_000, 1, 32, 32), *numbers.T[:2], numbers[:, 2] < 0.5)
    middle = crops[:, 0, 12, 11:13].long()
    rows, columns = middle[:, 0] // 32, middle % 32
    flipped = columns[:, 0] > columns[:, 1]
    assert int(flipped.sum()) == pytest.approx(20_000, abs=500)
    for places in (rows, columns.min(1).values):
        counts = places.bincount()
        counts = counts[counts > 0]
        assert len(counts) == 13
        assert int(counts.min()) > 2_800
        assert int(counts.max()) < 3_350


def test_a_test_image_is_its_central_crop_standardised() -> None:
    crop = IMAGES[:, :, 4:28, 4:28].double()
    found = AUGMENTATION.plain(IMAGES, torch.float64)
    means, deviations = crop.mean((1, 2, 3), keepdim=True), crop.std((1, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(found, (crop - means) / deviations, rtol=1e-12, atol=1e-12)


def test_an_image_without_contrast_is_not_stretched_beyond_the_bound() -> None:
    flat = torch.full((1, 3, 4, 4), 7.0, dtype=torch.float64)
    flat[0, 0, 0, 0] = 7.001
    assert torch.equal(standardised(torch.full((1, 3, 4, 4), 7.0)), torch.zeros(1, 3, 4, 4))
    expected = (flat - flat.mean()) * 48**0.5  # its deviation of 0.00014 is below 1 / sqrt(48)
    torch.testing.assert_close(standardised(flat), expected, rtol=1e-9, atol=1e-12)


def test_a_task_augments_what_it_trains_on_and_nothing_else() -> None:
    labels = ALL % 2
    plain = Split(AUGMENTATION.plain(IMAGES, torch.float32), labels)
    task = Task("small", Categorical(2), Split(IMAGES, labels), plain, plain, augmentation=AUGMENTATION)
    task = task.to(torch.device("cpu"), torch.float64)
    assert task.input_shape == (3, 24, 24)
    assert task.train.inputs.dtype == torch.uint8
    torch.testing.assert_close(task.training_inputs(ALL[5:9], SEED, EPOCH), augmented(ALL[5:9]))
    reference = task.reference_inputs(6)
    assert torch.equal(reference, task.reference_inputs(9)[:6])
    matches = torch.isclose(reference[:, None], task.test.inputs[None], atol=1e-5).flatten(2).all(2)
    assert matches.sum(1).tolist() == [1] * 6
