"""Conditions that were tried for docs/frontier.md: other times, a share of one's own choice, an end with one model.

python -m motivation frontier frontier/digits --variant late "--motivation-plugins configs/frontier/conditions.py
    --motivation-condition windowed --motivation-plugin-kwargs begin=0.5"
"""

from motivation import register_condition
from motivation.method.conditions import FallingLoss, RandomSchedule


@register_condition("windowed")
class Windowed(FallingLoss):
    """The paper's condition in a part of the run, and the motivated model alone at its end.

    Args:
        k: length of the streak.
        begin, end: the part of the run in which a streak counts, each from 0 to 1.
        finish: from this part of the run on the motivated model trains alone; 1 for never.
    """

    def __init__(self, k, begin=0.0, end=1.0, finish=1.0):
        super().__init__(k)
        self._begin, self._end, self._finish = begin, end, finish
        self._epochs, self._part = 1, 0.0

    @property
    def motivated(self):
        if self._part >= self._finish:
            return True
        return self._begin <= self._part < self._end and super().motivated

    expected_share = None

    def start_run(self, epochs, updates):
        self._epochs = epochs

    def start_epoch(self, epoch, updates):
        super().start_epoch(epoch, updates)
        self._part = epoch / self._epochs

    def state_dict(self):
        return {**super().state_dict(), "part": self._part}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._part = state["part"]


@register_condition("share")
class Share(RandomSchedule):
    """A share of one's own choice: as many updates of each epoch, drawn at random.

    Args:
        share: of motivated updates, from 0 to 1.
        seed: of the draws.
    """

    def __init__(self, share, seed=0):
        super().__init__(seed)
        self._share = share

    @property
    def expected_share(self):
        return self._share

    def count(self, epoch, updates, stream):
        return int(self._share * updates + stream.random())
