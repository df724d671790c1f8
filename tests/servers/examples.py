"How many examples a property is held to: few of the same in `make test`, more and other ones in `make soak`."

from hypothesis import settings

MOST = 25  # in `make test`


def examples(many: int) -> settings:
    "A setting for Hypothesis: so many examples at the most; ten times as many with `--hypothesis-profile default`."
    every_day = settings.default.derandomize
    return settings(max_examples=min(many, MOST) if every_day else 10 * many, deadline=None)
