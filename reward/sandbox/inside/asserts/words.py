"""The words by which a program is read: what ordinary programs import, define and ask for.

Standard library only: this is loaded inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def special(text: str) -> frozenset[str]:
    """The words of a text as special names."""
    return frozenset(f"__{word}__" for word in text.split())


FRAMES = words(
    """
    gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame ag_code ag_await
    tb_frame tb_next f_back f_builtins f_code f_globals f_locals f_trace co_consts co_code co_names
    co_varnames func_globals func_code get_stack get_coro get_context with_traceback mro eval_str
    """
)
# Members that lead to an interpreter's insides wherever they hang, or run text as a program.
DENIED_MEMBERS = FRAMES | words(
    """
    sys _sys os _os builtins _builtins modules gc inspect importlib ctypes subprocess marshal eval
    enable_load_extension load_extension as_strided stride_tricks ctypeslib
    configure_mock mock_add_spec attach_mock
    """
)
ASKING = special("eq ne lt le gt ge contains")
OPERATORS = ASKING | special(
    """
    add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or radd rsub rmul
    rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror iadd isub imul
    imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior
    """
)
# Methods by which a value that only looks like data could be asked whether it is as expected.
COMPARISONS = words(
    "equals equal isclose allclose issubset issuperset isdisjoint startswith endswith"
)
METHODS = OPERATORS | special(
    """
    init new del repr str bytes format hash bool len length_hint getitem setitem delitem missing
    iter reversed next call enter exit aenter aexit aiter anext await neg pos abs invert complex
    int float index round trunc floor ceil getattr getattribute setattr delattr dir get set delete
    set_name init_subclass class_getitem copy deepcopy post_init sizeof fspath
    """
)
# Special members that a program may ask a value for.
ASKED = METHODS | special("name qualname doc class module annotations dict version")
BOUND_IN_CLASS = special("slots doc name qualname module version match_args test")
BOUND_IN_MODULE = special("all author version license doc")
STORED = special("name doc qualname")
SPECIAL_NAMES = special("name file doc class")
DENIED_NAMES = words(
    """
    eval exec compile globals locals vars breakpoint attrgetter methodcaller update_wrapper
    Formatter get_type_hints ForwardRef make_dataclass
    """
)
METACLASSES = words("ABCMeta EnumMeta EnumType")

# What may be imported. None allows every public member that is none of `DENIED_OF`; a set names
# the members that are allowed.
MODULES: Mapping[str, frozenset[str] | None] = dict.fromkeys(
    words(
        """
        abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath cmd codecs
        collections collections.abc colorsys concurrent concurrent.futures configparser contextlib
        contextvars copy csv dataclasses datetime decimal difflib email email.message email.mime
        email.mime.text email.mime.multipart enum errno filecmp fileinput fnmatch fractions
        functools getpass glob graphlib gzip hashlib heapq hmac html html.parser http http.client
        io ipaddress itertools json keyword locale logging lzma math mimetypes numbers operator
        os.path pathlib platform pprint queue random re reprlib sched secrets shlex shutil smtplib
        sqlite3 stat statistics string stringprep struct tarfile tempfile textwrap threading time
        tokenize typing typing_extensions unicodedata urllib urllib.parse urllib.error
        urllib.request uuid warnings weakref xml xml.etree xml.etree.ElementTree xml.dom
        xml.dom.minidom zipfile zlib zoneinfo numpy numpy.random numpy.linalg numpy.typing
        numpy.fft numpy.ma numpy.char numpy.polynomial pandas pandas.api pandas.api.types requests
        json.decoder json.encoder asyncio.exceptions asyncio.locks asyncio.queues email.utils
        dateutil.tz logging.handlers dateutil dateutil.relativedelta dateutil.parser
        sortedcontainers scipy scipy.stats scipy.optimize scipy.spatial scipy.spatial.distance
        scipy.special scipy.linalg scipy.signal networkx bs4 sklearn sklearn.metrics
        sklearn.linear_model sklearn.cluster sklearn.preprocessing
        """
    )
) | {
    "__future__": words("annotations generator_stop division print_function absolute_import"),
    "os": words(
        """
        path getcwd listdir makedirs mkdir remove rename replace environ getenv sep linesep walk
        scandir stat rmdir unlink cpu_count getpid urandom PathLike fspath pathsep curdir pardir
        name access F_OK R_OK W_OK X_OK SEEK_SET SEEK_CUR SEEK_END chmod removedirs error strerror
        """
    ),
    "sys": words(
        """
        maxsize float_info int_info setrecursionlimit getrecursionlimit stdin stdout stderr exit
        version version_info platform getsizeof byteorder argv set_int_max_str_digits maxunicode
        hash_info intern getrefcount executable get_int_max_str_digits
        """
    ),
    "inspect": words(
        """
        signature Parameter Signature isfunction isclass iscoroutinefunction isgenerator
        isgeneratorfunction ismethod isbuiltin isroutine iscoroutine isawaitable getdoc isabstract
        """
    ),
    "traceback": words("print_exc format_exc print_exception format_exception_only"),
    "types": words(
        """
        SimpleNamespace MappingProxyType GeneratorType FunctionType MethodType NoneType LambdaType
        BuiltinFunctionType ModuleType TracebackType UnionType GenericAlias CoroutineType
        """
    ),
}
DENIED_OF: Mapping[str, frozenset[str]] = {
    "asyncio": words("create_subprocess_exec create_subprocess_shell subprocess"),
    "concurrent.futures": words("ProcessPoolExecutor process"),
    "dataclasses": words("make_dataclass"),
    "functools": words("update_wrapper"),
    "numpy": words(
        "load save fromfile memmap lib core ctypeslib f2py testing distutils DataSource"
    ),
    "pandas": words("read_pickle to_pickle eval testing io core"),
    "string": words("Formatter"),
    "threading": words("settrace setprofile excepthook"),
    "typing": words("get_type_hints ForwardRef"),
    "typing_extensions": words("get_type_hints ForwardRef evaluate_forward_ref"),
}
STAR = words(
    """
    math cmath collections itertools heapq bisect typing random datetime decimal fractions
    statistics re time enum abc copy json queue dataclasses collections.abc numbers functools
    operator string
    """
)
# Modules of functions and data alone: nothing of them asks a program for an object's opinion.
SIMPLE = words(
    """
    math cmath collections itertools functools heapq bisect re string typing random datetime decimal
    fractions statistics json __future__
    """
)
NOT_SIMPLE = words(
    """
    getattr setattr delattr hasattr open type dir id input memoryview super object property
    classmethod staticmethod format format_map attrgetter methodcaller partial
    """
)
