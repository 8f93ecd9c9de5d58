"""Which files are images, by their names; torchvision's list, without importing it."""

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def is_image(name: str) -> bool:
    """Whether the name of a file, in any case of letters, ends like an image's."""
    return name.lower().endswith(IMAGE_ENDINGS)
