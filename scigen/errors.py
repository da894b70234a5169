"""The one exception for mistakes that a user can mend, and one for being asked to stop."""


class UserError(Exception):
    """Something the user gave is wrong, and the message says how to mend it.

    The message names the value, what was expected and the remedy. The command line prints it alone and exits with
    status 2; `--debug` adds the traceback. Everything that is not a `UserError` is a defect of scigen.
    """


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end, other than Ctrl-C; the same command goes on where it stopped."""
