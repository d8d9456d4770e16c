"""The Space: everything is in u2net_hub.demo.

Which models it shows is said by the variable U2NET_MODELS in the Space's settings, with commas between them.
"""

from u2net_hub.demo import launch

launch(on_ready=print)
