"""``python -m motivation benchmark``: what this program costs beside timm's script and beside what the hardware can do.

Everything is measured side by side in one run and reported as ratios: single times depend on the machine and on what
else it does. ``docs/performance.md`` has the figures.
"""
