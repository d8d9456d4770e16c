#!/bin/sh
# Brings every card up to date with its results.json, from the root of the checkout; text that people wrote stays.
set -e
for folder in u2net_hub/weights/*; do
    name=$(basename "$folder")
    u2net card --model "$name" --picture examples/astronaut.jpg --overwrite --out "$folder/README.md"
    mkdir -p "model_cards/$name"
    cp "$folder/README.md" "$folder/results.json" "$folder/example.webp" "model_cards/$name/"
done
u2net card --model u2net --results model_cards/u2net/results.json --out model_cards/u2net/README.md
