"""Pictures of a run: the loss of each update with the motivated stretches shaded, and what became of each epoch.

``python -m motivation plot RUN`` draws both. Paper, supplementary section 7 and Figure 2: the loss within an epoch,
with motivation and without, on identical axes.
"""
