"""The Space starts the demo of the package u2net_hub, which lies beside this file.

The variable U2NET_MODELS in the settings of the Space names its models, separated by commas.
"""

from u2net_hub.demo import launch

launch(on_ready=print)
