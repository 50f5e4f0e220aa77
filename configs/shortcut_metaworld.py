"""A shortcut model in small on the same demonstrations as `pi0_metaworld`."""

from configs import pi0_metaworld, shortcut


def get_config():
    return shortcut.with_shortcuts(pi0_metaworld.get_config())
