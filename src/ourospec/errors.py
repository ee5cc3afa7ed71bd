"""What can go wrong through a user's hands, each kind with the exit code that `ouro` ends with.

A message says what happened, where, and why; the remedy says what to do next. The command line prints both
without a traceback (`--debug` shows it); a notebook sees an ordinary exception.
"""


class OuroError(Exception):
    """A mistake or a limit that the user can do something about.

    Args:
        message: what happened, where and why.
        remedy: the next thing to try, a command where there is one.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.remedy}" if self.remedy else message


class ConfigError(OuroError):
    """A preset, option or recipe that cannot be meant: exit code 2."""

    exit_code = 2


class DataError(OuroError):
    """Text, tokens or files that cannot be used as they are: exit code 3."""

    exit_code = 3


class ResourceError(OuroError):
    """Something the machine or the run directory lacks, or another process holds: exit code 4."""

    exit_code = 4


class DivergedError(OuroError):
    """A loss or gradient that is no longer a finite number: exit code 5."""

    exit_code = 5


class Interrupted(OuroError):
    """The user asked the run to stop; everything is saved: exit code 130."""

    exit_code = 130
