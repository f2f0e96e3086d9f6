# Builds plans of the flavour tensorrt, on a machine with the GPU that will run them.
#
#   docker build -f docker/build.Dockerfile --build-arg TAG=26.07-py3 -t strata-build .
#   docker run --gpus all -v $PWD/build/resnet50:/work strata-build \
#     build int8.onnx --flavour tensorrt --batch 1,8,32 -o a10.engine
#
# TAG is that of the Triton that will serve: containers of one month have one TensorRT. Not built
# by its authors: there was no Docker and no GPU.
ARG TAG
FROM nvcr.io/nvidia/tensorrt:${TAG}

# In an environment of its own, which sees the TensorRT of the container.
RUN python3 -m venv --system-site-packages /opt/strata
COPY pyproject.toml README.md LICENSE /src/
COPY core /src/core
COPY calib_data /src/calib_data
COPY exporter /src/exporter
COPY deploy /src/deploy
RUN /opt/strata/bin/pip install --no-cache-dir /src \
 && /opt/strata/bin/python -c "import tensorrt; print('TensorRT', tensorrt.__version__)"

WORKDIR /work
ENTRYPOINT ["/opt/strata/bin/strata"]
CMD ["doctor"]
