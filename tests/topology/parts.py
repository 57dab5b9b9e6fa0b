"""What `sound.yaml` runs."""


def handler() -> None: ...


def run() -> None: ...


NOT_CALLABLE = 1
