"""Tar archives, made in memory."""

import io
import tarfile
from collections.abc import Mapping, Sequence


def tar_of(
    files: Mapping[str, bytes], mode: str = "w", more: Sequence[tarfile.TarInfo] = ()
) -> bytes:
    """An archive of `files`, by name, and of `more` members, without content.

    mode: "w", or "w:gz" for a compressed one.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in more:
            tar.addfile(member)
    return buffer.getvalue()
