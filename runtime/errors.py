"""Failures that a person can mend."""

EXIT_CODE = 78
"""What `oms run` exits with on a `UserError` (EX_CONFIG of sysexits.h): to start it again would change nothing."""


class UserError(Exception):
    """Something that the user can mend; the message is one sentence (or two) that says what to do.

    The CLI prints it without a traceback and exits 1.
    """


def no_space(place: object) -> UserError:
    return UserError(f"The disk is full ({place}): free some space, or choose another folder with --data-dir.")
