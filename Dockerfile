# blendtitan in an image of PyTorch, whose torch it keeps. It installs the wheel in dist/:
#   python -m build && docker build --tag blendtitan .
#   docker run --rm --gpus all --ipc host --user "$(id -u):$(id -g)" --volume "$PWD:/work" \
#       blendtitan train my-run
# BASE is the image to start from: any with Python 3.11 and torch 2.13, or newer. Choose the CUDA
# version that your driver supports: --build-arg BASE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
ARG BASE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime
FROM ${BASE}

# Triton compiles a little C for each of its kernels, such as those of intra-document masking.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*

# The Python of newer images belongs to the system, and pip would refuse to install for it.
ENV PIP_BREAK_SYSTEM_PACKAGES=1

COPY dist/blendtitan-*.whl /tmp/dist/
# The constraint keeps the torch of the image: pip fails instead of replacing it.
RUN python3 -c 'import torch; print(f"torch=={torch.__version__}")' >/tmp/constraints.txt \
    && wheel=$(ls /tmp/dist/blendtitan-*.whl) \
    && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt \
        "${wheel}[train,report,fast]" \
    && rm -r /tmp/dist /tmp/constraints.txt

# `docker run --user` may name someone without a home or a name: caches go to /tmp, and torch, which
# asks for the name, finds one.
RUN useradd --uid 10001 blendtitan && mkdir /work && chown blendtitan /work
USER 10001
ENV HOME=/tmp USER=blendtitan
WORKDIR /work

ENTRYPOINT ["blendtitan"]
CMD ["--help"]
