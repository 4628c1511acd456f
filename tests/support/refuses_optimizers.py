"""Makes timm refuse every optimizer, as a library of one machine that is not that of the others might."""

import motivation.build.learners as learners


def refuse(*arguments, **options):
    raise ValueError("this optimizer needs a newer library")


learners.create_optimizer_v2 = refuse
