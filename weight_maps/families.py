"""Imports every family, so that its maps are registered."""

from weight_maps import resnet as resnet
