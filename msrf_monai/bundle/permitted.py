"""Which dotted names a config may use: public names that their own package defines, without what runs or loads."""

from __future__ import annotations

from msrf_monai.bundle.public_names import find_definition, is_installed, is_submodule

__all__ = [
    "BY_NAME",
    "DENIED",
    "HARMLESS_BUILTINS",
    "MODULES",
    "ROOTS",
    "UNSAFE_PARTS",
    "is_helper",
    "is_module",
    "is_permitted",
    "is_target",
    "missing_package",
]

ROOTS = ("monai", "torch", "ignite", "msrf_monai")
"""Packages that a ``_target_`` may come from, besides a few classes of the standard library."""

_STANDARD = frozenset({"collections", "datetime", "fractions", "glob", "logging", "math", "os", "pathlib"})
MODULES = frozenset({*ROOTS, *_STANDARD, "numpy"})
"""Modules that an expression may import."""

# Of these, what the package itself defines, as its files say: see public_names.
_PACKAGES = (
    *(f"monai.{name}" for name in ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks")),
    *(f"monai.{name}" for name in ("optimizers", "transforms", "visualize")),
    *(f"monai.apps.{name}" for name in ("deepedit", "deepgrow", "detection", "generation", "nuclick", "pathology")),
    *(f"monai.apps.{name}" for name in ("reconstruction", "vista3d")),
    *(f"torch.{name}" for name in ("amp", "cuda.amp", "fft", "linalg", "nn", "optim", "random", "special")),
    *(f"torch.{name}" for name in ("utils.checkpoint", "utils.data", "version")),
    *(f"ignite.{name}" for name in ("distributed", "engine", "handlers", "metrics")),
    *(f"msrf_monai.{name}" for name in ("engines", "inferers", "losses", "metrics", "networks", "transforms")),
)
# Each has methods and members, defined in C or by an enumeration: one more name may follow.
_OPEN_NAMES = (
    *(f"torch.{name}" for name in ("Tensor", "finfo", "iinfo", "Size", "distributed.ReduceOp")),
    *(f"numpy.{name}" for name in ("finfo", "iinfo", "ndarray", "fft", "linalg", "random")),
    *(f"monai.networks.layers.{name}" for name in ("Act", "Conv", "Norm", "Pool")),
    "math",
)
_NOT_OPEN = frozenset({"numpy.random.mtrand", "numpy.random.bit_generator", "numpy.linalg.linalg", "numpy.fft.helper"})
_ARRAY = """
abs all allclose any arange argmax argmin argsort array as_tensor asarray atleast_1d bfloat16 bincount bool bool8
bool_ cat ceil channels_last clamp clip concat concatenate contiguous_format cos cumsum device diff dot double dtype
einsum empty equal exp eye flip float float16 float32 float64 floor from_numpy full full_like gather Generator
get_default_dtype get_num_threads greater greater_equal half histogram inf inference_mode initial_seed int int16
int32 int64 int8 integer isfinite isinf isnan less less_equal linspace log logical_and logical_not logical_or
logical_xor long manual_seed matmul max maximum mean median meshgrid min minimum nan nan_to_num ndarray ndim newaxis
no_grad nonzero norm ones ones_like permute pi pow preserve_format prod quantile rand randint randn randperm relu
reshape rot90 round set_float32_matmul_precision set_num_threads shape short sigmoid sign sin Size softmax sort sqrt
squeeze stack std strided sum take tanh Tensor tensor topk transpose uint16 uint8 unique unsqueeze
use_deterministic_algorithms var where zeros zeros_like
"""
_CUDA = """
current_device device device_count empty_cache get_device_capability get_device_name is_available is_bf16_supported
is_initialized manual_seed manual_seed_all mem_get_info memory_allocated reset_peak_memory_stats set_device synchronize
"""
_DISTRIBUTED = """
all_reduce barrier broadcast destroy_process_group get_backend get_rank get_world_size init_process_group is_available
is_initialized
"""
_NAMES = frozenset(
    {f"{module}.{name}" for module in ("torch", "numpy") for name in _ARRAY.split()}
    | {f"torch.cuda.{name}" for name in _CUDA.split()}
    | {f"torch.distributed.{name}" for name in _DISTRIBUTED.split()}
    | {f"torch.{name}.is_available" for name in ("mps", "xpu", "backends.cudnn", "backends.mps", "backends.mkldnn")}
    | {f"torch.backends.cudnn.{name}" for name in ("allow_tf32", "benchmark", "deterministic", "enabled", "version")}
    | {"torch.backends.cuda.is_built", "torch.backends.cuda.matmul.allow_tf32"}
    | {f"monai.utils.{name}" for name in ("convert_to_numpy", "convert_to_tensor", "ensure_tuple", "ensure_tuple_rep")}
    | {f"monai.utils.{name}" for name in ("BlendMode", "CommonKeys", "GridSampleMode", "GridSamplePadMode")}
    | {f"monai.utils.{name}" for name in ("InterpolateMode", "LossReduction", "MetricReduction", "NumpyPadMode")}
    | {f"monai.utils.{name}" for name in ("PytorchPadMode", "UpsampleMode", "first", "get_seed", "set_determinism")}
    | {f"msrf_monai.bundle.{name}" for name in ("finish_manifest", "prepare_run", "start_process_group")}
    | {"msrf_monai.bundle.stop_process_group", "ignite.utils.setup_logger"}
    | {f"msrf_monai.clinical.{name}" for name in ("ClinicalImageReader", "LoadClinicalImage", "LoadClinicalImaged")}
    | {
        f"msrf_monai.data.{name}"
        for name in ("balanced_weights", "list_images", "load_datalist", "load_pool", "verify_dataset")
    }
    | {"glob.glob", "os.cpu_count", "os.environ", "os.environ.get", "os.fspath", "os.path", "os.sep"}
    | {f"os.path.{name}" for name in ("abspath", "basename", "dirname", "exists", "isdir", "isfile", "join")}
    | {f"os.path.{name}" for name in ("normpath", "relpath", "splitext")}
    | {f"logging.{name}" for name in ("getLogger", "DEBUG", "INFO", "WARNING", "ERROR")}
    | {"collections.OrderedDict", "datetime.timedelta", "fractions.Fraction"}
    | {"pathlib.PurePath", "pathlib.PurePosixPath"}  # they touch no disk
)
_STANDARD_TARGETS = ("collections.", "datetime.", "fractions.", "math.", "pathlib.")
# TorchScript holds no Python pickle, and MONAI's own inference from model.ts builds it as a component.
_TARGET_ONLY = "torch.jit.load"

_FORBIDDEN = tuple(
    f"{name}."
    for name in (
        *(f"monai.data.{name}" for name in ("utils.pickle_hashing", "utils.pickle_operations")),
        *(f"monai.networks.{name}" for name in ("trt_compiler", "utils.convert_to_trt", "utils.save_state")),
        "monai.transforms.utils_create_transform_ims",
        *(f"torch.utils.data.{name}" for name in ("datapipes", "graph", "graph_settings")),
        *(f"ignite.distributed.{name}" for name in ("launcher", "Parallel", "spawn")),
    )
)
# Modules that many others import, and so are reachable behind a permitted name: torch.nn.modules.module.sys.
_MODULES_BEHIND = """
ast asyncio base64 builtins code codecs concurrent copyreg ctypes dill distutils fcntl gc http importlib inspect
joblib linecache marshal mmap multiprocessing nt operator optional os pdb pickle pickletools pip pkgutil platform
posix pty pydoc requests resource runpy setuptools shelve shutil signal site socket sqlite3 ssl subprocess sys
sysconfig tarfile tempfile threading timeit traceback types urllib urllib3 webbrowser xmlrpc yaml zipfile zipimport
"""
# The same packages again behind a module, where the rules would not see which part is meant.
_PACKAGES_BEHIND = """
ignite monai msrf_monai numpy np torch
"""
# What runs, imports or evaluates.
_RUNS = """
CompilationUnit ConfigComponent ConfigExpression ConfigParser compile eval eval_expr exec execfile
get_parsed_content import_module instantiate load_module load_submodules locate optional_import popen require
require_pkg run_cmd safe_eval spawn system
"""
# What loads or writes.
_LOADS = """
chmod download_and_extract download_url dump dumps extractall from_file fromfile hub load_inline load_library
load_objects load_url memmap mkdir open read_bytes read_text rename replace_file rmdir rmtree serialization symlink_to
tofile touch unlink write_bytes write_text
"""
# What a logging configuration calls is for it to say.
_CONFIGURES = """
dictConfig fileConfig listen
"""
# Frames and classes, by which all else is reached.
_INNER = """
ag_frame cr_frame f_back f_builtins f_code f_globals f_locals func_globals gi_code gi_frame mro tb_frame tb_next
"""
UNSAFE_PARTS = frozenset((_MODULES_BEHIND + _PACKAGES_BEHIND + _RUNS + _LOADS + _CONFIGURES + _INNER).split())
"""What no part of a dotted name, and no attribute in an expression, may be."""

_DENIED_CLASSES = """
BertPreTrainedModel CacheNTransDataset CameraDataset ClearMLHandler ClearMLImageHandler ClearMLLogger
ClearMLStatsHandler FlexUNetEncoderRegister GDSDataset LMDBDataset MedicalNetPerceptualSimilarity NeptuneLogger
PerceptualLoss PersistentDataset PolyaxonLogger RadImageNetPerceptualSimilarity TorchvisionModelPerceptualSimilarity
Transchex TrtCompiler VisdomLogger WandBLogger
"""
_DENIED_FUNCTIONS = """
convert_to_onnx convert_to_torchscript convert_to_trt create_cross_validation_datalist
get_pretrained_resnet_medicalnet load_net_with_metadata look_up_named_module look_up_option pickle_hashing
pickle_operations register_writer save_net_with_metadata save_state set_named_module trt_compile update_docstring
"""
DENIED = frozenset((_DENIED_CLASSES + _DENIED_FUNCTIONS).split())
"""Public components of the packages that read pickles, fetch code, look names up or write elsewhere than a result."""

_LOADERS = ("LoadImage", "LoadImaged", "LoadImageD", "LoadImageDict", "ImageDataset")
_SAVERS = ("SaveImage", "SaveImaged", "SaveImageD", "SaveImageDict")
BY_NAME = frozenset({*_LOADERS, *_SAVERS, "NumpyReader", "PatchInferer"})
"""Components that call whatever a text names, or unpickle when the second argument says so; see ``is_helper``."""
FETCHING = frozenset(
    {"EfficientNetBN", "EfficientNetBNFeatures", "EfficientNetEncoder", "MILModel", "ResNetEncoder", "ResNetFeatures"}
)
"""Networks that fetch weights unless ``pretrained`` is false."""
FETCH_OPTIONS = frozenset({"pretrained", "pretrained_url"})
"""Options by which networks of MONAI fetch weights."""
_HELPERS = """
itkreader nibabelreader nrrdreader numpyreader pilreader pydicomreader wsireader image2dreader clinicalimagereader
itkwriter nibabelwriter pilwriter avgmerger zarravgmerger
"""

_BUILTINS = """
abs all any bool dict divmod enumerate filter float frozenset int isinstance iter len list map max min next pow
print range reversed round set slice sorted str sum tuple zip
"""
HARMLESS_BUILTINS = frozenset(_BUILTINS.split())
"""Functions of Python that an expression may call."""


def is_permitted(name: str) -> bool:
    """Say whether an expression may use a dotted name that begins at a module."""
    return (BY_NAME | FETCHING).isdisjoint(name.split(".")) and _is_component(name, may_be_unbound=True)


def is_target(name: str) -> bool:
    """Say whether a ``_target_`` may have this name."""
    if name == _TARGET_ONLY:
        return True
    is_below = name.startswith((*(f"{root}." for root in ROOTS), *_STANDARD_TARGETS))
    return is_below and _is_component(name, may_be_unbound=False)


def is_helper(name: str) -> bool:
    """Say whether a reader, writer or merger may be given by this name, which MONAI looks up as Python would."""
    is_one = name.lower().endswith(("reader", "writer", "merger"))
    return name.lower() in _HELPERS.split() or ("." in name and is_one and is_target(name))


def is_module(name: str) -> bool:
    """Say whether an expression may import this module: one of the allow list, or a package on the way to one."""
    if name in MODULES:
        return True
    if not _is_plain(name) or _is_forbidden(name):
        return False
    on_the_way = any(entry == name or entry.startswith(f"{name}.") for entry in (*_PACKAGES, *_NAMES, *_OPEN_NAMES))
    return on_the_way or (_is_within(name) and is_submodule(name))


def missing_package(name: str) -> str:
    """Return the package without which a name cannot be judged, where it is not installed; "" otherwise."""
    root = name.partition(".")[0]
    return root if root in ROOTS and "." in name and not is_installed(root) else ""


def _is_component(name: str, *, may_be_unbound: bool) -> bool:
    if not _is_plain(name) or _is_forbidden(name):
        return False
    parent = name.rpartition(".")[0]
    if name in _NAMES or (parent in _OPEN_NAMES and name not in _NOT_OPEN):
        return True
    is_member = parent in _NAMES and parent.startswith("monai.utils.")
    # of this package only what its rooms export
    is_own = name.startswith("msrf_monai.")
    if not (is_member or _is_within(name)) or (is_own and name.count(".") != 2):
        return False
    found = find_definition(name)
    if found is None or not (found.is_bound or may_be_unbound):
        return False
    origin = f"{found.module}.{found.name}"
    is_at_home = is_member or is_own or _is_within(origin)
    return is_at_home and found.name not in UNSAFE_PARTS and not _is_forbidden(origin)


def _is_within(name: str) -> bool:
    return name.startswith(tuple(f"{package}." for package in _PACKAGES))


def _is_forbidden(name: str) -> bool:
    return any(f"{name}.".startswith(prefix) for prefix in _FORBIDDEN) or not DENIED.isdisjoint(name.split("."))


def _is_plain(name: str) -> bool:
    """Say whether all parts are public ASCII names, none of which runs, loads or writes things."""
    first, *others = name.split(".")
    parts = (first, *others)
    if not all(part.isascii() and part.isidentifier() and not part.startswith("_") for part in parts):
        return False
    return not any(part in UNSAFE_PARTS for part in others)
