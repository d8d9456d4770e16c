"""The u2net command as a module, for launchers: `accelerate launch -m u2net_hub train …`."""

from .cli import main

main()
