#!/usr/bin/env bash
# Type-checks the `cuda` feature on a machine without a GPU and without an installed CUDA toolkit.
#
#   scripts/check-cuda.sh [ARGUMENTS OF CARGO CHECK]
#
# The toolkit comes from PyPI wheels (1.2 GB on disk). The first run compiles the kernels of candle, 10 to 30 minutes of
# one core; later runs check this repository only. Linking needs the driver's libcuda, so `cargo check` is as far as
# this goes.
#
#   CUDA_SERIES        release of the toolkit, default 13.2; candle 0.11.1 binds CUDA up to 13.4
#   CUDA_COMPUTE_CAP   compute capability to compile the kernels for, default 90
#   CUDA_TOOLKIT_DIR   where the toolkit is installed, default TARGET_DIR/cuda-toolkit-SERIES
#   CARGO_TARGET_DIR   as for cargo
#   CUDAFORGE_THREADS  kernels compiled at the same time, default 1 (each takes up to 2 GB of memory)
#   PYTHON             an interpreter with the venv module, default python3
set -euo pipefail

fail() {
    printf 'check-cuda: %s\n' "$1" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
series=${CUDA_SERIES:-13.2}
target=${CARGO_TARGET_DIR:-target}
toolkit=${CUDA_TOOLKIT_DIR:-$target/cuda-toolkit-$series}

[[ $(uname -s) == Linux ]] || fail "the toolkit's wheels are for Linux, this is $(uname -s)"
[[ $series =~ ^13\.[0-9]+$ ]] || fail "CUDA_SERIES is '$series', expected 13.MINOR; the layout is that of these wheels"
command -v cargo >/dev/null || fail "cargo is not on PATH"
command -v "$python" >/dev/null || fail "$python is not on PATH; set PYTHON to a Python interpreter"
command -v c++ >/dev/null || fail "c++ is not on PATH; nvcc needs a C++ compiler (g++ 12 to 15)"

# cuBLAS and cuRAND are versioned apart from the toolkit; any release of the same major version has the same interface.
minor=${series#13.}
toolkit_range=">=$series,<13.$((minor + 1))"
requirements=(
    "nvidia-cuda-nvcc$toolkit_range"
    "nvidia-cuda-crt$toolkit_range"
    "nvidia-nvvm$toolkit_range"
    "nvidia-cuda-runtime$toolkit_range"
    "nvidia-cuda-cccl$toolkit_range"
    "nvidia-cuda-nvrtc$toolkit_range"
    "nvidia-cublas>=13,<14"
    "nvidia-curand>=10.4,<11"
)

# The stamp holds what is installed, so an interrupted or differently pinned installation is repeated.
stamp=$toolkit/installed.txt
if ! cmp -s "$stamp" <(printf '%s\n' "${requirements[@]}"); then
    # `venv --clear` empties the folder, so it must be one of ours.
    if [[ -d $toolkit && ! -f $toolkit/pyvenv.cfg && -n $(ls -A "$toolkit") ]]; then
        fail "$toolkit exists and is not a Python environment; choose another CUDA_TOOLKIT_DIR"
    fi
    rm -f "$stamp"
    "$python" -m venv --clear "$toolkit" || fail "$python -m venv $toolkit failed; on Debian it is in python3-venv"
    "$toolkit/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${requirements[@]}" \
        || fail "the toolkit's wheels could not be installed from PyPI; see pip's message above"
    printf '%s\n' "${requirements[@]}" >"$stamp"
fi

site=$("$toolkit/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
CUDA_HOME=$(realpath -e "$site/nvidia/cu13") && [[ -x $CUDA_HOME/bin/nvcc ]] \
    || fail "no nvidia/cu13/bin/nvcc under $site: the wheels of CUDA $series are laid out differently"

# Build scripts look for lib64 and for names without a version; the wheels have lib and libcudart.so.13 only.
ln -sfn lib "$CUDA_HOME/lib64"
for library in "$CUDA_HOME"/lib/*.so.*; do
    [[ -e $library ]] || fail "no shared library in $CUDA_HOME/lib"
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
done

export CUDA_HOME
export CUDA_PATH=$CUDA_HOME CUDA_ROOT=$CUDA_HOME CUDA_TOOLKIT_ROOT_DIR=$CUDA_HOME NVCC=$CUDA_HOME/bin/nvcc
export PATH=$CUDA_HOME/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
export CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-1}

release=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
[[ $release == "$series" ]] || fail "$NVCC is release '$release', expected $series; remove $toolkit and run again"

printf 'check-cuda: CUDA %s in %s, compute capability %s\n' "$release" "$CUDA_HOME" "$CUDA_COMPUTE_CAP" >&2
cargo check --features cuda "$@"
