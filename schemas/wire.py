"""What reading and writing agree on: the Confluent wire format's first byte, and what is no message."""

MAGIC = 0


class Undecodable(ValueError):
    """These bytes are not a message of ours; the text says why."""
