"""The choice of a corpus."""

from typing import Annotated

from pydantic import Field

from ourospec.data.files import FilesSource
from ourospec.data.records import RecordsSource
from ourospec.data.stdlib import StdlibSource

__all__ = ["FilesSource", "RecordsSource", "SourceConfig", "StdlibSource"]

SourceConfig = Annotated[StdlibSource | FilesSource | RecordsSource, Field(discriminator="kind")]
