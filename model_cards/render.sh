#!/bin/sh
# Makes every card anew from its results.json: after new bundled weights, from the root of the checkout.
set -e
bundled=u2net_hub/weights/u2netp
rm -f model_cards/*/README.md
if [ -f $bundled/results.json ]; then
    rm -f $bundled/README.md
    u2net card --model u2netp --picture examples/astronaut.jpg --out $bundled/README.md
    mkdir -p model_cards/u2netp
    cp $bundled/README.md $bundled/results.json $bundled/example.webp model_cards/u2netp/
fi
u2net card --model u2net --results model_cards/u2net/results.json --out model_cards/u2net/README.md
