"""How the wheel is built: of the files that there are, not of those that there were."""

import shutil

from setuptools.command.build_py import build_py


class FreshBuild(build_py):
    """setuptools' own, without what an earlier version left in build/, which it would pack too."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def get_source_files(self) -> list[str]:
        """With this file: a source archive has what its wheel is built with."""
        return [*super().get_source_files(), "utils/wheel.py"]
