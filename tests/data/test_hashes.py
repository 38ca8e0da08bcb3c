"""What images look like: planted duplicates are found, others are not, broken files are told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from kit.competition.duplicates import duplicate_groups, duplicate_pairs, duplicates_between
from kit.data.hashes import hash_images
from kit.data.sources import Channels, PixelRow, PixelTable


def scene(seed: int, side: int = 96) -> Image.Image:
    """Blurred blobs of colour: what a photo is to a hash."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def saved(folder: Path, **images: Image.Image) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in images]


CHANGES = {
    "half the size": lambda image: image.resize((48, 48), Image.Resampling.BILINEAR),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda image: image.convert("L"),
    "a pixel cut off": lambda image: image.crop((1, 1, 95, 95)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_near_its_original_alone(name, tmp_path):
    originals = {f"scene{seed}": scene(seed) for seed in range(8)}
    copies = {f"copy{seed}": CHANGES[name](scene(seed)) for seed in range(8)}
    hashed = hash_images(saved(tmp_path / "images", **originals, **copies), tmp_path / "cache")
    assert duplicate_pairs(hashed, 6).tolist() == [[seed, seed + 8] for seed in range(8)]
    assert duplicate_pairs(hashed, "exact").tolist() == []


def test_a_recompressed_copy_is_near(tmp_path):
    for quality in (95, 30):
        scene(1).save(tmp_path / f"{quality}.jpg", quality=quality)
    hashed = hash_images([tmp_path / "95.jpg", tmp_path / "30.jpg"], tmp_path / "cache")
    assert duplicate_groups(hashed, 6).tolist() == [0, 0]
    assert duplicate_groups(hashed, "exact").tolist() == [0, 1]
    assert hashed.kinds.tolist() == ["JPEG RGB", "JPEG RGB"]


@pytest.mark.parametrize("turned", [ImageOps.mirror, ImageOps.flip, ImageOps.invert])
def test_flipped_and_inverted_images_are_no_duplicates(turned, tmp_path):
    hashed = hash_images(saved(tmp_path / "images", image=scene(2), other=turned(scene(2))), tmp_path / "cache")
    assert duplicate_pairs(hashed, 16).tolist() == []


def test_flat_images_are_not_near_each_other(tmp_path):
    """The hash of one level is always the same one, and that of noise on it means nothing."""
    generator = np.random.default_rng(0)
    noisy = [Image.fromarray(generator.integers(99, 102, (32, 32, 3), dtype=np.uint8)) for _ in range(4)]
    flat = {f"grey{level}": Image.new("RGB", (32, 32), (level, level, level)) for level in (0, 90, 91, 255)}
    copies = {"again": Image.new("RGB", (32, 32), (90, 90, 90))}
    files = saved(tmp_path / "images", **flat, **copies, **{f"noisy{n}": image for n, image in enumerate(noisy)})
    hashed = hash_images(files, tmp_path / "cache")
    assert not hashed.comparable.any()
    assert hashed.readable.all()
    assert duplicate_pairs(hashed, 16).tolist() == [[1, 4]]


def test_orientation_is_applied(tmp_path):
    upright = scene(3).resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    hashed = hash_images([tmp_path / "upright.png", tmp_path / "turned.png"], tmp_path / "cache")
    assert hashed.width.tolist() == [96, 96]
    assert hashed.height.tolist() == [64, 64]
    assert duplicate_pairs(hashed, "exact").tolist() == [[0, 1]]


def test_the_same_pixels_in_another_format_are_the_same(tmp_path):
    scene(4).save(tmp_path / "a.png")
    scene(4).save(tmp_path / "a.bmp")
    hashed = hash_images([tmp_path / "a.png", tmp_path / "a.bmp"], tmp_path / "cache")
    assert hashed.digests[0] == hashed.digests[1] != ""
    assert hashed.kinds.tolist() == ["PNG RGB", "BMP RGB"]


def test_unreadable_files_are_told_and_like_nothing(tmp_path):
    whole = saved(tmp_path, whole=scene(5))[0]
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "more.png").write_text("no image at all")
    names = ("whole", "cut", "text", "more", "gone")
    hashed = hash_images([tmp_path / f"{name}.png" for name in names], tmp_path / "cache")
    assert hashed.faults[[0, 1, 2, 3]].tolist() == ["", "truncated", "no image", "no image"]
    assert "No such file" in hashed.faults[4]
    assert hashed.readable.tolist() == [True, False, False, False, False]
    assert duplicate_pairs(hashed, 16).tolist() == []
    assert hashed.width.tolist() == [96, 0, 0, 0, 0]


def test_channels_are_seen_as_their_mean_and_table_rows_as_images(tmp_path):
    red, green, blue = scene(6).split()
    files = saved(tmp_path / "images", red=red, green=green, blue=blue)
    mean = np.stack([np.asarray(part, dtype=int) for part in (red, green, blue)]).sum(axis=0) // 3
    files += saved(tmp_path / "images", mean=Image.fromarray(mean.astype(np.uint8)))
    small = np.asarray(scene(7, side=8).convert("L"))
    columns = tuple(f"pixel{place}" for place in range(64))
    lines = [",".join(columns), ",".join(map(str, small.ravel())), ",".join(map(str, small.T.ravel()))]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    table = PixelTable(tmp_path / "table.csv", columns, 8, 8)
    rows = saved(tmp_path / "images", small=Image.fromarray(small))
    sources = [Channels(tuple(files[:3])), files[3], PixelRow(table, 0), PixelRow(table, 1), *rows]
    hashed = hash_images(sources, tmp_path / "cache")
    assert duplicate_pairs(hashed, "exact").tolist() == [[0, 1], [2, 4]]
    assert hashed.kinds.tolist() == ["3 × PNG L", "PNG L", "table L", "table L", "PNG L"]
    assert hashed.width.tolist() == [96, 96, 8, 8, 8]


def test_another_layout_of_a_table_is_looked_at_anew(tmp_path):
    columns = tuple(f"p{place}" for place in range(64))
    small = np.asarray(scene(7, side=8).convert("L"))
    lines = [",".join(columns), ",".join(map(str, small.ravel()))]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    turned = (columns[0], *columns[:0:-1])
    tables = [PixelTable(tmp_path / "table.csv", names, 8, 8) for names in (columns, turned)]
    hashed = [hash_images([PixelRow(table, 0)], tmp_path / "cache") for table in tables]
    assert hashed[0].digests[0] != hashed[1].digests[0]


def test_hashes_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    files = saved(tmp_path / "images", one=scene(8), two=scene(9))
    reported = []
    first = hash_images(files, tmp_path / "cache", lambda done, total: reported.append((done, total)))
    assert reported == [(1, 2), (2, 2)]
    monkeypatch.setattr("kit.data.hashes.open_image", lambda source: pytest.fail("decoded again"))
    again = hash_images(files, tmp_path / "cache")
    assert all((getattr(first, name) == getattr(again, name)).all() for name in vars(first))
    monkeypatch.undo()
    scene(8).rotate(90).resize((40, 40)).save(files[1])
    assert hash_images(files, tmp_path / "cache").width.tolist() == [96, 40]
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"damaged")
    assert hash_images(files, tmp_path / "cache").width.tolist() == [96, 40]


def test_no_images(tmp_path):
    hashed = hash_images([], tmp_path)
    assert (len(hashed), hashed.thumbnails.shape) == (0, (0, 16, 16))
    assert duplicate_pairs(hashed, 4).shape == duplicates_between(hashed, hashed, 4).shape == (0, 2)
    assert duplicate_groups(hashed, 4).shape == (0,)
