"""From options to objects. The only room that calls timm's factories.

The order in which things are made is timm's, because each may draw from the random stream; what only a motivated run
has is made in a fork of it.
"""
