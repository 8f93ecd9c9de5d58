"""Which images make a batch, in which order, in which process."""

import pytest

from utils.data.batches import EvalBatches, TrainBatches
from utils.errors import UsageError


def keys(batches, epoch: int = 0, first_step: int = 0) -> list[list]:
    batches.start(epoch, first_step)
    return list(batches)


@pytest.mark.parametrize(
    ("images", "batch_size", "world", "steps", "used"),
    [
        (50, 12, 1, 5, 50),  # the last batch is smaller
        (50, 12, 2, 4, 48),  # one each: batch norm can't train on it
        (52, 12, 2, 5, 52),
        (53, 12, 2, 5, 52),  # the same number for every process
        (49, 12, 1, 4, 48),
        (50, 12, 3, 4, 48),
        (5, 12, 1, 1, 5),
    ],
)
def test_a_training_epoch_covers_the_images_once(images, batch_size, world, steps, used):
    ranks = [TrainBatches(images, batch_size, 0, rank, world) for rank in range(world)]
    epochs = [keys(batches) for batches in ranks]
    assert {len(each) for each in epochs} == {len(ranks[0])} == {steps}
    for together in zip(*epochs, strict=True):
        assert len({len(batch) for batch in together}) == 1
    sizes = {len(batch) for batch in epochs[0]}
    assert ranks[0].sizes == sizes
    seen = [key for each in epochs for batch in each for key in batch]
    assert len(set(seen)) == len(seen) == used
    assert set(seen) <= {(0, index) for index in range(images)}
    counts = [sum(len(each[step]) for each in epochs) for step in range(steps)]
    assert [ranks[0].images_until(step) for step in range(steps + 1)] == [
        sum(counts[:step]) for step in range(steps + 1)
    ]


@pytest.mark.parametrize(("images", "world"), [(1, 1), (3, 2)])
def test_images_that_make_no_batch_are_a_mistake(images, world):
    with pytest.raises(UsageError, match=f"^{images} training images are too few: each process"):
        TrainBatches(images, 12, 0, 0, world)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_order_of_one(world):
    ranks = [keys(TrainBatches(48, 12, 5, rank, world), epoch=2) for rank in range(world)]
    for step, batch in enumerate(keys(TrainBatches(48, 12, 5), epoch=2)):
        assert [batch[rank::world] for rank in range(world)] == [each[step] for each in ranks]


def test_the_order_changes_with_epoch_and_seed():
    def order(seed: int, epoch: int) -> list[int]:
        ((*batch,),) = keys(TrainBatches(20, 20, seed), epoch)
        assert {each for each, _ in batch} == {epoch}
        return [index for _, index in batch]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(order(3, 4)) == list(range(20))


def test_an_epoch_goes_on_from_any_step():
    whole = keys(TrainBatches(50, 12, 3), epoch=1)
    for first_step in range(6):
        batches = TrainBatches(50, 12, 3)
        assert keys(batches, 1, first_step) == whole[first_step:]
        assert len(batches) == 5  # of the epoch


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_covers_every_image_once(world, batch_size):
    ranks = [EvalBatches(13, batch_size, rank, world) for rank in range(world)]
    steps = [list(batches) for batches in ranks]
    seen = [key for each in steps for batch in each for key in batch]
    assert sorted(seen) == [(0, index) for index in range(13)]
    assert [len(batches) for batches in ranks] == [len(each) for each in steps]
    for batches, each in zip(ranks, steps, strict=True):
        assert batches.sizes == {len(batch) for batch in each}
        assert batches.common_steps == min(map(len, steps))
    assert max(map(len, steps)) - min(map(len, steps)) <= 1
    assert ranks[0].images_until(1) == sum(len(each[0]) for each in steps)
    assert ranks[0].images_until(len(ranks[0])) == 13
