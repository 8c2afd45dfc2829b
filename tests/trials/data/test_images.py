"""Decoding: EXIF orientation as Pillow and Hugging Face apply it, damaged data, and the size asked for."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from torchvision import transforms

from tests.trials.layouts import decoded, encoded, forget, picture, put, write_parquet
from trials.data import images as images_module
from trials.data import load_data, room
from trials.data.images import ImageStack, decode, resized
from trials.data.sets import folder, tinyimagenet
from trials.data.sets.imagenet import load_imagenet
from trials.data.streamed import Images, eval_transform
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")

ORIENTATIONS = range(1, 9)


def oriented(pixels: np.ndarray, orientation: int, kind: str, **other: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for name, value in other.items():
        exif[ExifTags.Base[name]] = value
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, exif=exif)
    return stream.getvalue()


def as_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


# --- orientation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_image_is_turned_as_its_exif_data_say(orientation, kind, gray):
    pixels = picture(3, 10, 16)
    data = oriented(pixels[:, :, 0] if gray else pixels, orientation, kind, Make="camera")
    image, was_gray = decode(data, "here")
    assert np.array_equal(np.asarray(image), as_pillow(data))
    assert image.size == ((16, 10) if orientation < 5 else (10, 16))
    assert was_gray == (gray and kind != "WEBP")  # WebP stores gray images as RGB


def test_the_eight_orientations_differ():
    images = [np.asarray(decode(oriented(picture(3, 12, 12), o, "PNG"), "here")[0]) for o in ORIENTATIONS]
    for (i, one), (j, other) in itertools.combinations(enumerate(images), 2):
        assert not np.array_equal(one, other), (i, j)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "GIF"])
def test_an_image_without_orientation_is_as_before(kind):
    data = encoded(picture(4, 9, 13), kind)
    assert np.array_equal(np.asarray(decode(data, "here")[0]), decoded(data))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_means_nothing_changes_nothing(orientation):
    data = oriented(picture(4, 9, 13), orientation, "JPEG")
    assert np.array_equal(np.asarray(decode(data, "here")[0]), decoded(data))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_damaged_exif_data_are_no_reason_to_lose_an_image(kind):
    """Either the orientation can still be read, or the image is as if it had none; no other error escapes."""
    data = oriented(picture(4, 9, 13), 6, kind, Make="camera maker", Software="of some kind")
    start = data.index(b"MM\0*")
    upright, plain = as_pillow(data), decoded(data)
    seen = set()
    random = np.random.default_rng(0)
    for place, value in itertools.product(range(60), random.integers(0, 256, 6).tolist()):
        damaged = bytearray(data)
        damaged[start + place] = value
        image = np.asarray(decode(bytes(damaged), "here")[0])
        turned = image.shape == upright.shape
        assert turned or np.array_equal(image, plain)
        seen.add(turned)
    assert seen == {True, False}


def square(seed: int, orientation: int, kind: str = "PNG") -> bytes:
    return oriented(picture(seed), orientation, kind)


@pytest.mark.parametrize("name", ["folder", "tinyimagenet", "parquet", "tinyimagenet in Parquet"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_data_in_memory_are_upright(tmp_path, name, orientation):
    data = square(5, orientation)
    for split in ("train", "val" if name in ("folder", "tinyimagenet") else "validation"):
        if name in ("folder", "tinyimagenet"):
            put(tmp_path / split / "cat/a.png", data)
        else:
            write_parquet(tmp_path / f"{split}.parquet", [data], [0])
    raw = load_data(name.split()[0], str(tmp_path))
    assert np.array_equal(raw.train_images[0].permute(1, 2, 0).numpy(), as_pillow(data))
    assert np.array_equal(raw.test_images[0].permute(1, 2, 0).numpy(), as_pillow(data))


@pytest.mark.parametrize("source", ["folders", "Parquet"])
def test_streamed_data_are_upright(tmp_path, source):
    images = [square(6, orientation, "JPEG") for orientation in ORIENTATIONS]
    for split in ("train", "validation" if source == "Parquet" else "val"):
        if source == "Parquet":
            write_parquet(tmp_path / f"{split}.parquet", images, [0] * 8)
        for number, data in enumerate(images if source == "folders" else []):
            put(tmp_path / split / f"cat/{number}.jpg", data)
    data = load_imagenet(tmp_path, crop_size=64, resize=64)
    batch = Images(data.train, eval_transform(data))[list(range(8))]
    for pixels, encoded_image in zip(batch, images, strict=True):
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), as_pillow(encoded_image))


@pytest.mark.parametrize(("name", "module"), [("folder", folder), ("tinyimagenet", tinyimagenet)])
def test_what_was_cached_before_images_were_turned_is_not_returned(tmp_path, monkeypatch, name, module):
    for split in ("train", "val"):
        put(tmp_path / split / "cat/a.png", square(7, 6))
    upright = load_data(name, str(tmp_path)).train_images
    forget(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_decode", lambda *_: pytest.fail("decoded again"))
        assert load_data(name, str(tmp_path)).train_images.equal(upright)
        forget(monkeypatch)
        patch.setattr(module, "DECODING", "of another version")
        with pytest.raises(pytest.fail.Exception):
            load_data(name, str(tmp_path))


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "here holds no image: its bytes must be in the file, not only their path"),
        (b"", "here holds no image, but 0 bytes: restore it, or remove it"),
        (b"text", "here is not a readable image: remove or repair it (of no known format)"),
        (encoded(picture(0))[:-300], "here is not a readable image: remove or repair it (image file is truncated"),
    ],
)
def test_what_is_no_image_is_named(data, said):
    with pytest.raises(DataError) as caught:
        decode(data, "here")
    assert said in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM"])
def test_random_damage_ends_in_an_image_or_in_one_line(kind):
    data = oriented(picture(8, 12, 9), 6, kind) if kind not in ("BMP", "PPM") else encoded(picture(8, 12, 9), kind)
    random = np.random.default_rng(1)
    refused = []
    for _ in range(150):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 200), 3):
            damaged[place] = random.integers(0, 256)
        try:
            decode(bytes(damaged), "here")
        except DataError as error:
            refused.append(str(error))
    assert refused
    assert all(message.startswith("here ") and "\n" not in message for message in refused)


# --- the size asked for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 16, 40])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (10, 31), (31, 10), (9, 8), (64, 63)])
def test_resizing_is_torchvisions(height, width, size):
    image = Image.fromarray(picture(9, height, width))
    wanted = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])(image)
    assert np.array_equal(np.asarray(resized(image, size)), np.asarray(wanted))
    assert np.asarray(wanted).shape == (size, size, 3)


def test_an_image_is_turned_before_it_is_resized():
    data = oriented(picture(10, 20, 30), 6, "PNG")
    stack = ImageStack(1, 8)
    stack.add(data, "here")
    assert np.array_equal(stack.array(gray=False)[0].transpose(1, 2, 0), resized(Image.fromarray(as_pillow(data)), 8))


@pytest.mark.parametrize("gray", [False, True])
def test_images_of_many_sizes_make_one_array(gray):
    stack = ImageStack(3, 6)
    for number, (height, width) in enumerate([(6, 9), (20, 11), (3, 4)]):
        pixels = picture(number, height, width)
        stack.add(encoded(pixels[:, :, 0] if gray else pixels, "PNG"), f"image {number}")
    assert stack.gray is gray
    assert stack.array(stack.gray).shape == (3, 1 if gray else 3, 6, 6)


def test_without_it_another_size_is_refused_with_a_way_out():
    stack = ImageStack(2, way_out="give image_size")
    stack.add(encoded(picture(0, 6, 9)), "a")
    with pytest.raises(
        DataError, match="b is 9x6 pixels and a 6x9, but all images must have the same size: give image"
    ):
        stack.add(encoded(picture(0, 9, 6)), "b")


def png(channels: int, bits: int) -> bytes:
    """A PNG image of 4x4 pixels; Pillow writes colours with 8 bits only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = (b"\0" + b"\x12\x34"[: bits // 8] * channels * 4) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(bits: int) -> bytes:
    """An uncompressed RGB image of 4x4 pixels."""
    pixels = b"\x12" * (4 * 4 * 3 * bits // 8)
    fields = {256: 4, 257: 4, 258: 0, 259: 1, 262: 2, 273: 0, 277: 3, 278: 4, 279: len(pixels)}
    end = 8 + 2 + 12 * len(fields) + 4
    fields |= {258: end, 273: end + 6}
    entries = [
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, v) for tag, v in fields.items()
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<HHH", bits, bits, bits) + pixels


def ppm(kind: int, largest: int) -> bytes:
    count = 3 if kind in (3, 6) else 1
    values = b"1 " * 16 * count if kind in (2, 3) else b"\1" * 16 * count * (2 if largest > 255 else 1)
    return b"P%d\n4 4\n%d\n" % (kind, largest) + values


DEEP = {
    **{f"PNG of {channels} channels": (png(channels, 8), png(channels, 16)) for channels in (1, 2, 3, 4)},
    "TIFF": (tiff(8), tiff(16)),
    **{f"P{kind}": (ppm(kind, 255), ppm(kind, 65_535)) for kind in (2, 3, 5, 6)},
    "P6 of 10 bits": (ppm(6, 100), ppm(6, 1023)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_images_of_more_than_8_bits_a_channel_are_refused(kind):
    usual, deep = DEEP[kind]
    assert decode(usual, "here")[0].size == (4, 4)
    with pytest.raises(DataError, match=r"here has .*, but must have 8.*: convert it first") as caught:
        decode(deep, "here")
    assert "\n" not in str(caught.value)


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [encoded(picture(0, 6, 9)), encoded(picture(0, 6, 9)[:, :, 0], "PNG")])
@pytest.mark.parametrize("image_size", [13_400, 10**5, 10**9])
def test_a_size_that_is_too_large_ends_in_one_line(monkeypatch, data, image_size):
    """Whether it is memory that says no, or Pillow."""
    for available in (10**9, 10**30):
        monkeypatch.setattr(room, "available_bytes", lambda available=available: available)
        with pytest.raises(DataError, match=r"give a smaller image_size") as caught:
            ImageStack(100, image_size).decoded(data, "here")
        assert "\n" not in str(caught.value)


def test_an_image_that_is_very_long_on_the_way_is_refused():
    with pytest.raises(DataError, match=r"here cannot be made 4000x4000 pixels: .*before it is cropped it would have"):
        ImageStack(1, 4000).decoded(encoded(np.zeros((2, 3000, 3), np.uint8), "PNG"), "here")


@pytest.mark.parametrize("step", ["upright", "resized"])
def test_no_memory_ends_in_one_line(monkeypatch, step):
    def none(*_):
        raise MemoryError

    monkeypatch.setattr(images_module, step, none)
    with pytest.raises(DataError, match=r"here (does not fit in memory|cannot be made 8x8 pixels: .*MemoryError)"):
        ImageStack(1, 8).decoded(encoded(picture(0)), "here")


def test_images_that_do_not_fit_in_memory_are_refused_at_the_first(monkeypatch):
    monkeypatch.setattr(room, "available_bytes", lambda: 3 * 6 * 9 * 100 - 1)
    with pytest.raises(DataError, match=r"100 images of 6x9 pixels, as here has, take 0\.0 GiB .*: resize them first"):
        ImageStack(100).add(encoded(picture(0, 6, 9)), "here")
