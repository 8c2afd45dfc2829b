"""What operators and kernels do, by their names: convolution, batch norm, cast, optimiser, …; no torch."""

from __future__ import annotations

OPERATORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("convolution, gradients", ("convolution_backward",)),
    ("convolution", ("convolution",)),
    ("batch norm", ("batch_norm",)),
    ("matrix product", ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "mv", "addmv")),
    ("optimiser", ("_fused_sgd", "_fused_adam", "_fused_adamw")),
    ("many tensors at once", ("_foreach",)),
    ("cast", ("_to_copy",)),
    ("copy", ("copy", "clone", "cat", "contiguous", "stack")),
    ("new tensor", ("empty", "zeros", "ones", "full", "new_", "fill", "zero", "arange", "scalar_tensor", "rand")),
    ("selection", ("histc", "bincount", "cumsum", "searchsorted", "gather", "scatter", "sort", "topk", "kthvalue",
                   "index_select", "index_put", "index", "nonzero", "take")),
    ("loss and sums", ("log_softmax", "nll_loss", "argmax", "sum", "mean", "amax", "amin", "max", "min", "norm",
                       "linalg_vector_norm", "all", "any", "avg_pool", "adaptive_avg_pool")),
)  # fmt: skip
"""Kinds of ATen operators, by the beginning of their names; the first that fits counts."""

KERNELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fused by the compiler", ("triton",)),
    ("convolution, gradient of weights", ("wgrad", "wrw", "backward_filter", "backwardfilter")),
    ("convolution, gradient of inputs", ("dgrad", "backward_data", "backwarddata", "bgrad_input")),
    ("convolution", ("fprop", "convolve", "conv2d", "implicit_gemm", "winograd", "_conv_", "conv_depthwise")),
    ("batch norm", ("batch_norm", "batchnorm", "bn_fw", "bn_bw")),
    ("change of layout", ("nchwtonhwc", "nhwctonchw", "tonhwc", "tonchw", "transpose")),
    ("optimiser", ("fusedsgd", "fusedadam", "fused_sgd", "fused_adam")),
    ("many tensors at once", ("multi_tensor_apply",)),
    ("memory copy or fill", ("memcpy", "memset")),
    ("cast or copy", ("copy_kernel", "catarray", "convert")),
    ("selection", ("histogram", "searchsorted", "scan", "gather", "scatter", "sort", "radix", "index", "topk")),
    ("matrix product", ("gemm", "gemv", "cutlass", "splitk", "cublas", "nvjet")),
    ("loss and sums", ("softmax", "nll_loss", "reduce", "pool", "norm")),
    ("fill", ("fillfunctor",)),
    ("elementwise", ("elementwise",)),
)
"""Kinds of CUDA kernels, by parts of their names in lower case; the first that fits counts."""

OTHER_OPERATORS, OTHER_KERNELS = "elementwise", "other"


def kind_of_operator(name: str) -> str:
    """Return the kind of an ATen operator, named without its overload: ``convolution_backward``."""
    bare = name.removeprefix("aten::").removesuffix("_")
    for prefix in ("native_", "cudnn_", "miopen_", "_native_", "_cudnn_", "_unsafe_", "mkldnn_"):
        bare = bare.removeprefix(prefix)
    for kind, names in OPERATORS:
        if any(_begins(bare, begin) for begin in names):
            return kind
    return OTHER_OPERATORS


def _begins(name: str, begin: str) -> bool:
    """Whether a name begins with whole words: ``sum`` begins ``sum_dim``, but ``all`` does not begin ``allclose``."""
    for bare in (name, name.lstrip("_")):
        if (
            bare == begin
            or bare.startswith((f"{begin}_", f"_{begin}"))
            or (begin[-1] == "_" and bare.startswith(begin))
        ):
            return True
    return False


def kind_of_kernel(name: str) -> str:
    """Return the kind of a CUDA kernel."""
    lower = name.lower()
    return next((kind for kind, parts in KERNELS if any(part in lower for part in parts)), OTHER_KERNELS)
