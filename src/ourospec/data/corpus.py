"""The choice of a corpus."""

from typing import Annotated

from pydantic import Field

from ourospec.data.files import FilesSource
from ourospec.data.puzzles.config import CurriculumSource, MixtureSource, PuzzleSource
from ourospec.data.records import RecordsSource
from ourospec.data.stdlib import StdlibSource

__all__ = ["FilesSource", "RecordsSource", "SourceConfig", "StdlibSource", "TextSource"]

TextSource = StdlibSource | FilesSource | RecordsSource
"""Text that is there, all of it."""
SourceConfig = Annotated[
    StdlibSource | FilesSource | RecordsSource | PuzzleSource | MixtureSource | CurriculumSource,
    Field(discriminator="kind"),
]
