# u2net serve in a container: the weights are inside the package, the process is not root and writes nothing.
#
#     docker build -t u2net .
#     docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:7000:7000 u2net --precision fast --edges soft
#
# .ci/image runs these steps without Docker.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# The package needs torch, and PyPI's torch for Linux brings several GB for NVIDIA GPUs. This one is for the CPU; it
# is imported for a GPU or for weights that OpenVINO cannot run, not for the models of the package.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/u2net
RUN /opt/u2net/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.8"
COPY . .
RUN /opt/u2net/bin/pip install --no-cache-dir ".[serve,openvino,fast]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/u2net /opt/u2net
ENV PATH=/opt/u2net/bin:$PATH HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 7000
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7000/readyz', timeout=4)"]
ENTRYPOINT ["u2net", "serve", "--host", "0.0.0.0"]
CMD ["--port", "7000"]
