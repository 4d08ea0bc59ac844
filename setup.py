"""The package's own build: it compiles the native kernels where there is a compiler, and never fails for want of one.

Everything else stands in pyproject.toml. Wheels hold the libraries and are for their platform alone; an editable
install leaves them in cupola/kernels/native/lib.
"""

import os
import sys
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cupola.kernels.native.build import INSTALLED, bring_up_to_date

HERE = Path(__file__).resolve().parent


class build_native(Command):
    """Compiles the native kernels: a sub-command of build, as setuptools describes them."""

    description = "compile the native kernels"
    user_options = []

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    @property
    def folder(self):
        return INSTALLED if self.editable_mode else Path(self.build_lib, INSTALLED.relative_to(HERE))

    def run(self):
        # On standard error: pip shows it where a build fails or is told to be verbose.
        print(bring_up_to_date(self.folder), file=sys.stderr)

    def get_source_files(self):
        rooms = HERE / "cupola" / "kernels"
        return [str(path.relative_to(HERE)) for end in ("cc", "h") for path in sorted(rooms.glob(f"*/*.{end}"))]

    def get_outputs(self):
        return [str(path) for path in sorted(self.folder.glob("*"))]

    def get_output_mapping(self):
        return {}


class for_platform(bdist_wheel):
    """A wheel that holds a library is for this platform; any Python 3 can load it."""

    def run(self):
        self.run_command("build")
        made = bool(self.get_finalized_command("build_native").get_outputs())
        self.root_is_pure = not made
        self.distribution.has_ext_modules = lambda: made
        super().run()

    def get_tag(self):
        return super().get_tag() if self.root_is_pure else ("py3", "none", super().get_tag()[2])


build.sub_commands = [*build.sub_commands, ("build_native", None)]
setup(cmdclass={"build_native": build_native, "bdist_wheel": for_platform})
