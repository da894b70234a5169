"""Configs: the YAML tree that scigen ships, and how words `key=value` turn it into one config."""

from scigen.config.composition import compose
from scigen.config.tree import config_dir, config_tree, copy_configs

__all__ = ["compose", "config_dir", "config_tree", "copy_configs"]
