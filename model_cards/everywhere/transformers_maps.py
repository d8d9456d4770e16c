"""Makes masks with transformers, in an environment of its own; measure.py runs it."""

import json
import sys
import time
from pathlib import Path

import transformers
from PIL import Image
from transformers import AutoModelForImageSegmentation

job = json.loads(sys.argv[1])
model = AutoModelForImageSegmentation.from_pretrained(job["folder"], trust_remote_code=True)
seconds = []
for path in map(Path, job["photos"]):
    photo = Image.open(path).convert("RGB")
    start = time.perf_counter()
    mask = model.predict(photo)
    seconds.append(time.perf_counter() - start)
    mask.save(Path(job["out"], f"{path.stem}.png"))
library = type(model._network).__module__.startswith("u2net_hub")
print(json.dumps({"version": transformers.__version__, "library": library, "seconds": seconds}))
