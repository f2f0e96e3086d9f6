# Runs bundles on a PC with a GeForce or RTX GPU, by TensorRT-RTX, and on any CPU by ONNX Runtime.
#
#   docker build -f docker/edge.Dockerfile -t strata-edge .
#   docker run --gpus all -v $PWD:/work -v strata-cache:/cache strata-edge run net.strata.zip cat.jpg
#
# The driver's libcuda comes from the machine (--gpus all, the NVIDIA container toolkit); all else is
# in the packages. Not built by its authors: there was no Docker and no GPU.
FROM python:3.11-slim

COPY pyproject.toml README.md LICENSE /src/
COPY core /src/core
COPY calib_data /src/calib_data
COPY exporter /src/exporter
COPY deploy /src/deploy
RUN pip install --no-cache-dir '/src[rtx]' onnxruntime

# Plans that are built here, and the kernels that TensorRT-RTX compiles, outlive the container.
RUN useradd --create-home strata && install -d -o strata /cache
ENV STRATA_CACHE=/cache
VOLUME /cache
USER strata
WORKDIR /work
ENTRYPOINT ["strata"]
CMD ["doctor"]
