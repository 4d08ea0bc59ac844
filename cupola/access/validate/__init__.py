"""Files that say what a permission graph must answer: SpiceDB's validation files, OpenFGA's stores and staged tests."""

from cupola.access.validate.place import FileError as FileError
from cupola.access.validate.place import Place as Place
from cupola.access.validate.read import find_files as find_files
from cupola.access.validate.read import read_suites as read_suites
from cupola.access.validate.report import Count as Count
from cupola.access.validate.report import Failure as Failure
from cupola.access.validate.report import Kind as Kind
from cupola.access.validate.report import Report as Report
from cupola.access.validate.run import run as run
from cupola.access.validate.run import validate as validate
