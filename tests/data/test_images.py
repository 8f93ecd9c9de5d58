import contextlib
import io
import multiprocessing
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.transforms.v2.functional import pil_to_tensor, resized_crop

from utils.data.batches import TrainBatches
from utils.data.images import (
    Crop,
    EvalTransform,
    PillowImage,
    TrainTransform,
    TurboImage,
    choose_backend,
    cut_below,
    open_image,
    random_crop,
)
from utils.data.listing import Listing
from utils.data.loader import BadImage, Collate, DeviceLoader, ImageDataset
from utils.data.normalise import Normalise
from utils.data.places import file
from utils.data.preparation import IMAGENET
from utils.errors import UsageError

simplejpeg = pytest.importorskip("simplejpeg")

# real broken files, where they are at hand
BROKEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "broken"
CPU = Normalise(torch.device("cpu"))


def photo(width: int = 300, height: int = 200, seed: int = 0) -> Image.Image:
    """Colours that change slowly, with detail on top."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.uint8((smooth + noise).clip(0, 255)))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SIXTEEN_BIT = Image.fromarray(np.arange(200 * 300, dtype=np.uint16).reshape(200, 300))
ODD_ONES = {
    "cmyk": encoded(photo().convert("CMYK")),
    "grey": encoded(photo().convert("L")),
    "palette png": encoded(photo().convert("P"), "PNG"),
    "transparent png": encoded(photo().convert("RGBA"), "PNG"),
    "png called jpeg": encoded(photo(), "PNG"),
    "jpeg with a tail": encoded(photo()) + b"tail",
}
UNREADABLE = {
    "truncated": encoded(photo())[:5000],
    "zero bytes": b"",
    "text": b"this is no image\n",
}
# by how much the decoders differ at most, in the mean; seen: 0.02, 0.3, 0.44, 0.46
PLAIN_ONES = {
    sampling: (encoded(photo(), subsampling=sampling), most)
    for sampling, most in (("4:4:4", 0.1), ("4:2:2", 1), ("4:2:0", 1))
}
PLAIN_ONES["what libjpeg repairs"] = encoded(photo())[:4000] + encoded(photo())[4300:], 2


def dataset_of(folder, files: dict[str, bytes], **options) -> ImageDataset:
    images = []
    for name, data in files.items():
        images.append(file(folder / f"{name}.JPEG"))
        (folder / f"{name}.JPEG").write_bytes(data)
    listing = Listing(["one"], images, np.zeros(len(images), np.int64))
    return ImageDataset(listing, TrainTransform(64), **options)


@pytest.mark.parametrize("name", [*ODD_ONES, *PLAIN_ONES])
def test_decoders_differ_within_the_tolerance(name, tmp_path):
    """Not at all where Pillow decodes what is no plain JPEG."""
    data, most = PLAIN_ONES.get(name) or (ODD_ONES[name], 0)
    turbo, pillow = (
        dataset_of(tmp_path, {"image": data}, backend=backend) for backend in ("turbo", "pil")
    )
    kind = type(open_image(turbo.listing.images[0], "turbo"))
    assert kind == (TurboImage if name in PLAIN_ONES else PillowImage)
    pixels = [(turbo[epoch, 0][0], pillow[epoch, 0][0]) for epoch in range(16)]
    assert np.mean([float((t.int() - p.int()).abs().double().mean()) for t, p in pixels]) <= most


def test_exif_turns_are_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    (tmp_path / "turned.JPEG").write_bytes(encoded(photo(), exif=exif))
    for backend in ("turbo", "pil"):
        image = open_image(file(tmp_path / "turned.JPEG"), backend)
        assert isinstance(image, TurboImage if backend == "turbo" else PillowImage)
        assert (image.height, image.width) == (200, 300)


@pytest.mark.parametrize("backend", ["turbo", "pil"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_nothing_can_read_is_named(name, backend, tmp_path):
    dataset = dataset_of(tmp_path, {name: UNREADABLE[name]}, backend=backend)
    bad = dataset[0, 0]
    assert isinstance(bad, BadImage)
    assert bad.path == str(tmp_path / f"{name}.JPEG")
    assert "0x" not in bad.reason
    assert "\n" not in bad.reason


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("rows", [1, 8, 15, 16, 17, 100, 199])
def test_rows_above_a_cut_stay_as_they_are(sampling, rows):
    def decode(data):
        return simplejpeg.decode_jpeg(data, "RGB", fastupsample=True, strict=False)

    data = encoded(photo(), subsampling=sampling)
    shorter = decode(cut_below(data, rows))
    assert len(shorter) == rows
    assert np.array_equal(shorter, decode(data)[:rows])


def test_what_can_not_be_cut_is_left_alone():
    progressive = encoded(photo(), progressive=True)
    for data in (progressive, encoded(photo(), "PNG"), b"", b"\xff\xd8\xff\xc0"):
        assert cut_below(data, 10) == data
    plain = encoded(photo())
    assert cut_below(plain, 200) == plain
    assert cut_below(plain, 199) != plain


def test_evaluation_with_pillow_equals_the_published_pixels():
    published = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
    )
    for size in [(300, 200), (201, 333), (500, 375), (100, 90), (256, 256), (257, 1000)]:
        data = encoded(photo(*size), subsampling="4:4:4")
        expected = published(Image.open(io.BytesIO(data)).convert("RGB"))
        assert torch.equal(EvalTransform(IMAGENET)(PillowImage(data)), expected)
        difference = EvalTransform(IMAGENET)(TurboImage(data)).int() - expected.int()
        assert difference.abs().max() <= 1


@pytest.mark.parametrize("name", ODD_ONES)
def test_crops_with_pillow_equal_the_published_pixels(name):
    data = ODD_ONES[name]
    crop = Crop(10, 20, 100, 150)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    expected = pil_to_tensor(resized_crop(image, *crop, [64, 48]))
    assert torch.equal(PillowImage(data).resized(crop, 64, 48), expected)


@pytest.mark.parametrize(
    ("shape", "least"), [((375, 500), 0.08), ((375, 500), 0.6), ((40, 400), 0.08), ((1, 1), 0.08)]
)
def test_crops_are_distributed_as_torchvisions(shape, least):
    image = torch.empty(1, *shape)
    draw = transforms.RandomResizedCrop.get_params
    theirs = np.array([draw(image, (least, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    rng = Random(0)
    ours = np.array([random_crop(*shape, rng, least) for _ in range(4000)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= shape).all()
    levels = np.linspace(0.02, 0.98, 13)
    for column in range(4):
        spread = np.ptp(theirs[:, column])
        quantiles = (np.quantile(each[:, column], levels) for each in (ours, theirs))
        np.testing.assert_allclose(*quantiles, atol=1 + 0.05 * spread)


@pytest.mark.parametrize(("hflip", "least", "most"), [(0.5, 150, 250), (0, 0, 0), (1, 400, 400)])
def test_as_many_images_are_flipped_as_asked(hflip, least, most):
    # a picture that grows brighter to the right, so that every crop of it does
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    image = PillowImage(encoded(Image.fromarray(ramp.copy()), "PNG"))
    transform = TrainTransform(32, hflip=hflip)
    rng = Random(0)
    corners = [transform(image, rng)[0, 0] for _ in range(400)]
    flipped = sum(bool(row[0] > row[-1]) for row in corners)
    assert least <= flipped <= most


def test_batches_are_channels_last(tmp_path):
    files = {"plain": encoded(photo()), "grey": encoded(photo().convert("L"))}
    dataset = dataset_of(tmp_path, files, backend="turbo")
    samples = [dataset[0, index] for index in (0, 1, 0)]
    images, targets, passed_over = Collate()(samples)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.uint8
    assert passed_over == []
    expected, expected_targets = default_collate([sample[:2] for sample in samples])
    assert torch.equal(images, expected)
    assert torch.equal(targets, expected_targets)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_replaced_by_the_next_and_reported_once(workers, tmp_path):
    files = {"0": encoded(photo()), "1": b"", "2": b"text", "3": encoded(photo(seed=1))}
    dataset = dataset_of(tmp_path, files, skip_bad=True)
    lines = []
    loader = DeviceLoader(dataset, TrainBatches(4, 4, seed=0), workers, CPU, report=lines.append)
    for epoch in range(2):
        loader.batches.start(epoch)
        ((images, _),) = loader
        assert len(images) == 4
        for bad in (1, 2):
            assert torch.equal(dataset[epoch, bad][0], dataset[epoch, 3][0])
    assert len(lines) == 2
    assert {line.split(" (")[0] for line in lines} == {
        f"skipped image {tmp_path / name}.JPEG" for name in ("1", "2")
    }
    assert lines[1].endswith("; 2 so far")


def test_nothing_but_bad_images_is_an_error(tmp_path):
    dataset = dataset_of(tmp_path, {"0": b"", "1": b"text"}, skip_bad=True)
    assert dataset[0, 1].path == str(tmp_path / "1.JPEG")
    loader = DeviceLoader(dataset, TrainBatches(2, 2, seed=0), 0, CPU, report=print)
    with pytest.raises(UsageError, match="can't decode image") as error:
        list(loader)
    assert "--skip-bad-images" not in str(error.value)


def test_a_decoder_that_is_not_installed(monkeypatch):
    assert choose_backend(None, "turbo") == "turbo"
    assert choose_backend("pil", "turbo") == "pil"
    monkeypatch.setattr("utils.data.images.simplejpeg", None)
    assert choose_backend(None, "turbo") == "pil"
    with pytest.raises(Exception, match="turbo needs simplejpeg: pip install simplejpeg"):
        choose_backend("turbo", "turbo")


def test_workers_may_be_spawned_as_on_macos(tmp_path):
    dataset = dataset_of(tmp_path, {str(seed): encoded(photo(seed=seed)) for seed in range(3)})
    batches = TrainBatches(len(dataset), 3, seed=0)
    ((alone, _),) = DeviceLoader(dataset, batches, 0, CPU)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        ((spawned, _),) = DeviceLoader(dataset, batches, 1, CPU)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert torch.equal(alone, spawned)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_in_16_bits_keeps_its_upper_8(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(SIXTEEN_BIT, kind))
    seen = open_image(file(path), "pil").resized(Crop(0, 0, *SIXTEEN_BIT.size[::-1]), 8, 8)
    upper = Image.fromarray((np.asarray(SIXTEEN_BIT) // 256).astype(np.uint8))
    expected = np.asarray(upper.resize((8, 8), Image.Resampling.BILINEAR).convert("RGB"))
    assert np.array_equal(seen.permute(1, 2, 0), expected)


def test_floats_whose_white_nobody_knows_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="floating-point pixels"):
        open_image(file(tmp_path / "a.tiff"), "pil")


@pytest.mark.parametrize("name", ["eps.jpg", "hdr20000.jpg"])
@pytest.mark.parametrize("backend", ["pil", "turbo"])
def test_what_must_not_be_opened_is_not(name, backend):
    path = BROKEN / name
    if not path.exists():
        pytest.skip(f"needs {path}")
    with pytest.raises((UnidentifiedImageError, Image.DecompressionBombError)):
        EvalTransform(IMAGENET)(open_image(file(path), backend))


def test_neither_pipes_nor_devices_are_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "endless.jpg"):
        with pytest.raises(ValueError, match="no regular file"):
            open_image(file(tmp_path / name), "turbo")


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    """Ghostscript draws EPS files for Pillow, whatever they are called."""
    path, witness, program = (tmp_path / name for name in ("x.jpg", "witness", "gs"))
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n" + b"%" * 99
    )
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # not looked for yet
    for backend in ("pil", "turbo"):
        with pytest.raises(UnidentifiedImageError, match="no image"):
            open_image(file(path), backend)
    assert not witness.exists()
    with contextlib.suppress(Exception), Image.open(path) as image:  # Pillow itself does it
        image.load()
    assert witness.exists()


def huge_header(data: bytes, height: int, width: int) -> bytes:
    """The JPEG `data`, saying that it is of another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


@pytest.mark.parametrize("size", [(20_000, 20_000), (65_500, 65_500)])
def test_the_limit_of_pixels_is_pillows_for_both_decoders(size, tmp_path):
    (tmp_path / "x.jpg").write_bytes(huge_header(encoded(photo()), *size))
    for backend in ("pil", "turbo"):
        with pytest.raises(Image.DecompressionBombError):
            open_image(file(tmp_path / "x.jpg"), backend)


@pytest.mark.parametrize("marker", [0xD8, 0xDA, 0xC4])
@pytest.mark.parametrize("at", [700, 9000])
def test_where_libjpeg_warns_pillow_decides(marker, at, tmp_path):
    """Wherever the damage is, and whatever part of the image is wanted."""
    data = encoded(photo())
    broken = data[:at] + bytes([0xFF, marker]) + data[at + 2 :]
    simplejpeg.decode_jpeg(broken, strict=False)  # goes on, in grey
    (tmp_path / "x.jpg").write_bytes(broken)
    for backend in ("pil", "turbo"):
        with pytest.raises(OSError, match="broken data stream"):
            open_image(file(tmp_path / "x.jpg"), backend).resized(Crop(0, 0, 20, 300), 8, 8)


@pytest.mark.parametrize(("height", "width"), [(3, 400), (400, 3)])
def test_a_strip_gives_the_pixels_of_the_whole_one_resized(height, width, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = EvalTransform(IMAGENET)(open_image(file(tmp_path / "a.png"), "turbo"))
    resize = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = np.asarray(resize(Image.fromarray(pixels))).astype(int)
    assert abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1
