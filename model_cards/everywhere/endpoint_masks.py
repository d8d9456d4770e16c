"""Makes masks with handler.py as Inference Endpoints does; measure.py runs it."""

import base64
import importlib.util
import json
import sys
import time
from pathlib import Path

import torch

job = json.loads(sys.argv[1])
spec = importlib.util.spec_from_file_location("handler", Path(job["folder"], "handler.py"))
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(job["folder"])
seconds = []
for path in map(Path, job["photos"]):
    content = path.read_bytes()
    start = time.perf_counter()
    [answer] = json.loads(json.dumps(handler({"inputs": content})))
    seconds.append(time.perf_counter() - start)
    Path(job["out"], f"{path.stem}.png").write_bytes(base64.b64decode(answer["mask"]))
print(json.dumps({"version": torch.__version__, "seconds": seconds}))
