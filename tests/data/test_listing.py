import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from utils.data import listing
from utils.data.batches import TrainBatches
from utils.data.files import IMAGE_ENDINGS, find_files, is_image
from utils.data.images import EvalTransform
from utils.data.listing import Listing, check_same_classes, list_images, synthetic_listing
from utils.data.loader import Collate, ImageDataset, start_worker
from utils.data.places import File, Places, file
from utils.data.preparation import IMAGENET
from utils.errors import UsageError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A settled tree that is worth a cache; as a folder with train/."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(listing, "CACHED_FROM", 1)
    root = tmp_path / "data"
    odd = os.fsdecode(b"\xff")  # a name that is no text
    for name in ("b/2.png", "b/1.JPEG", "a/deep/3.jpg", f"a/{odd}.jpg", "a/notes.txt", "ü/é.webp"):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "train" / "linked").symlink_to(root / "train" / "b")
    settle(root)
    return root


def settle(root, seconds: float = 100.0) -> None:
    """Make it so that every folder last changed some time ago."""
    then = time.time() - seconds
    for place, _, _ in os.walk(root):
        os.utime(place, (then, then))


def cache_file(root):
    (path,) = (root.parent / "caches" / "simam").glob("listing-*.npz")
    return path


def samples(root) -> list[tuple[str, int]]:
    images = list_images(str(root), "train")
    return list(zip(map(str, images.images), images.targets.tolist(), strict=True))


def expected(root) -> list[tuple[str, int]]:
    return ImageFolder(root / "train", allow_empty=True).samples


def test_the_cache_says_what_the_folders_say(tree, monkeypatch):
    first = samples(tree)
    left_out = list_images(str(tree), "train").left_out
    assert left_out == f"1 .txt in {tree}/train"
    assert first == expected(tree)
    assert len(first) == 7
    assert str(list_images(str(tree), "train").images[-1]) == first[-1][0]
    assert cache_file(tree).exists()
    # the second time nothing is walked through
    monkeypatch.setattr(os, "walk", None)
    assert samples(tree) == first
    assert list_images(str(tree), "train").left_out == left_out


@pytest.mark.parametrize("change", ["add", "remove", "deep", "class"])
def test_the_cache_notices_changes(tree, change):
    before = samples(tree)
    train = tree / "train"
    if change == "add":
        (train / "a" / "new.png").touch()
    elif change == "remove":
        (train / "b" / "2.png").unlink()
    elif change == "deep":
        (train / "a" / "deep" / "new.png").touch()
    else:
        (train / "c").mkdir()
        (train / "c" / "new.png").touch()
    assert samples(tree) == expected(tree) != before


@pytest.mark.parametrize("above", ["a", ".", ".."])
def test_a_link_to_a_folder_that_it_is_in_leads_nowhere(tree, above):
    before = samples(tree)
    (tree / "train" / "a" / "deep" / "up").symlink_to((tree / "train" / above).resolve())
    settle(tree)
    assert samples(tree) == before


def test_a_folder_that_has_just_changed_is_not_trusted(tree):
    settle(tree, seconds=1)
    assert samples(tree) == expected(tree)
    assert not (tree.parent / "caches").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_a_damaged_cache_is_made_anew(tree, damage):
    before = samples(tree)
    whole = cache_file(tree).read_bytes()
    if damage == "other":
        np.savez(cache_file(tree), folders=["."])
    else:
        cache_file(tree).write_bytes(whole[:-100] if damage == "truncated" else b"")
    assert samples(tree) == before
    assert cache_file(tree).read_bytes() == whole


def test_a_cache_that_can_not_be_written_does_no_harm(tree, monkeypatch):
    (tree.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tree.parent / "file"))
    assert samples(tree) == expected(tree)


def test_small_trees_leave_no_cache(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    list_images(str(digits), "train")
    assert list(tmp_path.iterdir()) == []


def test_files_are_taken_as_named_and_found_below_folders(tmp_path):
    for name in ("b/c.PNG", "b/a.png", "a.jpg.txt", "d/e.png", "none/f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named, gone = str(tmp_path / "a.jpg.txt"), str(tmp_path / "gone.png")
    found = find_files([named, str(tmp_path / "b"), gone, str(tmp_path)], (".png",), "image")
    below = [str(tmp_path / name) for name in ("b/a.png", "b/c.PNG", "d/e.png")]
    assert found == [named, *below[:2], gone, *below]
    with pytest.raises(UsageError, match=r"none holds no image \(\.png\)"):
        find_files([str(tmp_path / "none")], (".png",), "image")


def test_what_is_wrong_with_a_folder_is_said(digits, tmp_path):
    with pytest.raises(UsageError, match=r"data folder .*nowhere does not exist"):
        list_images(str(tmp_path / "nowhere"), "train")
    with pytest.raises(UsageError, match="has no folder train/"):
        list_images(str(tmp_path), "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match="has no class folders"):
        list_images(str(tmp_path), "train")
    shutil.copytree(digits, tmp_path / "data")
    (tmp_path / "data" / "train" / "zebra").mkdir()
    with pytest.raises(UsageError, match=r"class folder .*zebra holds no image"):
        list_images(str(tmp_path / "data"), "train")
    shutil.copy(digits / "val" / "0" / "000.png", tmp_path / "data" / "train" / "zebra")
    train, val = (list_images(str(tmp_path / "data"), split) for split in ("train", "val"))
    with pytest.raises(UsageError, match="in one of them only: zebra"):
        check_same_classes(train, val)


def test_image_endings_are_torchvisions():
    assert IMAGE_ENDINGS == IMG_EXTENSIONS
    names = ("a.JPEG", "b.webp", "valprep.sh", ".DS_Store", "a.JPEG.part")
    assert [is_image(name) for name in names] == [True, True, False, False, False]


def test_synthetic_listings_have_imagenets_size():
    assert len(synthetic_listing("train", 1000).images) == 1_281_167
    assert len(synthetic_listing("val", 10).classes) == 10


def private_bytes(process: int) -> int:
    """Memory that a process shares with no other."""
    with open(f"/proc/{process}/smaps_rollup") as file:
        lines = [line.split() for line in file if line.startswith("Private_")]
    return sum(int(words[1]) for words in lines) * 1024


def growth_over_epochs(folder: str, packed: bool, epochs: int = 10) -> int:
    """By how much the memory of a worker grows while it reads images among half a million paths."""
    # as long as ImageNet's names, all of the same small file
    names = ["/".join(["."] * (index % 8 + 8) + ["image.png"]) for index in range(500_000)]
    array = np.array([name.encode() for name in names])
    if packed:
        places = Places(File, folder, {"name": array})
    else:
        places = [file(f"{folder}/{name}") for name in names]
    del names
    images = Listing(["one"], places, np.zeros(len(places), np.int64))
    loader = DataLoader(
        ImageDataset(images, EvalTransform(IMAGENET.at(8))),
        batch_sampler=list(islice(TrainBatches(len(places), 100, seed=0), 5 * epochs)),
        num_workers=1,
        collate_fn=Collate(),
        worker_init_fn=start_worker,
        multiprocessing_context="fork",
    )
    sizes = []
    for step, _ in enumerate(loader):
        if step % 5 == 4:  # the end of an epoch of 500 images
            (worker,) = multiprocessing.active_children()
            sizes.append(private_bytes(worker.pid))
    return sizes[-1] - sizes[0]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_a_workers_memory_stays_flat_over_many_paths(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    # a process of its own: a worker shares the memory of whatever this one has done before, too
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        grown = pool.submit(growth_over_epochs, str(tmp_path), True).result()
        grown_as_list = pool.submit(growth_over_epochs, str(tmp_path), False).result()
    # seen: 0 and 15 MB
    assert grown < 4e6
    assert grown_as_list > 8e6
