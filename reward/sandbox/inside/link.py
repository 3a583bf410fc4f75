"""What the process of the tests and the process of the program say to each other.

One JSON line is one message: a request, or the answer to the last request. Whoever waits for an
answer serves the requests that come meanwhile, so a test may pass a function that the program
calls. Values cross as `reward.sandbox.inside.values` writes them: data is copied, and what is not
data stays where it is and crosses as a reference to it.

The side of the tests trusts nothing: whatever arrives is builtin data or a `Remote`, no operator
that takes a second operand is ever handed to the program (else `abs(f(x) - 2) < eps` would show it
the 2), and no exception of the program can end the tests by another way than failing. Where a test
asks for what does not survive the way between the processes, it is `odd`: what it says from there
on is no verdict.
Standard library only.

One file: both ends of one protocol.
"""

from __future__ import annotations

import builtins
import errno
import json
import operator
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NoReturn, Protocol, cast

from reward.sandbox.inside.values import Decoder, Encoder, TooLargeError, describe

_DETAIL_CHARS = 300
_MUTABLE = (list, dict, set, bytearray, deque)

Message = list[Any]


class PeerGoneError(BaseException):
    """The other process has ended, or says nonsense, or too much. No test may catch it."""

    def __init__(self, *, too_large: bool = False) -> None:
        self.too_large = too_large


class Handler(Protocol):
    """Answers one request."""

    def __call__(self, what: str, *parts: Any) -> Message:  # noqa: ANN401
        """Return the answer. Must not raise."""
        ...


class Link:
    """One end of the conversation."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes], handle: Handler, limit: int) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._limit = limit

    def request(self, *parts: object) -> Message:
        """Send a request and return its answer, serving the other side's requests meanwhile."""
        self._send(["ask", *parts])
        while (message := self._receive())[0] == "ask":
            self._send(self._handle(*message[1:]))
        return message

    def serve(self) -> None:
        """Answer requests until the other side has ended."""
        while True:
            try:
                message = self._receive()
            except PeerGoneError:
                return
            self._send(self._handle(*message[1:]))

    def _send(self, message: Message) -> None:
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            self._writer.flush()
        except OSError as error:
            raise PeerGoneError from error

    def _receive(self) -> Message:
        line = self._reader.readline(self._limit)
        if len(line) == self._limit and not line.endswith(b"\n"):
            raise PeerGoneError(too_large=True)
        try:
            message = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, list) or not message:
            raise PeerGoneError
        return cast("Message", message)


def error_kind(error: BaseException) -> str:
    """Which limit an error tells of, if any."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, TooLargeError) or (
        isinstance(error, OSError) and error.errno == errno.EFBIG
    ):
        return "output_limit"
    if (isinstance(error, OSError) and error.errno == errno.EAGAIN) or (
        isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    ):
        return "process_limit"
    return getattr(error, "kind_in_program", "runtime_error")


def error_text(error: BaseException) -> str:
    """One line for people. Asks the program's own `__str__`, which may do anything."""
    error.__traceback__ = None  # frees the program's locals, which may fill the memory
    try:
        return f"{type(error).__name__}: {error}"[:_DETAIL_CHARS]
    except Exception:  # noqa: BLE001 - the program's own `__str__`
        return type(error).__name__


# ---------------------------------------------------------------- the side of the program

_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "len": len,
    "iter": iter,
    "str": str,
    "repr": repr,
    "int": int,
    "float": float,
    "bool": bool,
    "index": operator.index,
    "abs": abs,
    "neg": operator.neg,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
}


class ProgramSide:
    """Serves the names of a loaded program."""

    def __init__(
        self, namespace: Mapping[str, Any], reader: IO[bytes], writer: IO[bytes], limit: int
    ) -> None:
        self._namespace = namespace
        self._objects: list[Any] = []  # what references stand for; nothing is ever forgotten
        self._decoder = Decoder(
            {
                "ref": lambda index: self._objects[index],
                "builtin": lambda name: getattr(builtins, name),
                "callback": self._callback,
            }
        )
        self.link = Link(reader, writer, self._handle, limit)

    def _handle(self, what: str, *parts: Any) -> Message:  # noqa: ANN401
        try:
            return getattr(self, f"_do_{what}")(*parts)
        except StopIteration as error:
            return ["stop"] if what == "next" else self._failure(error)
        except BaseException as error:  # noqa: BLE001 - the boundary to the program
            return self._failure(error)

    def _failure(self, error: BaseException) -> Message:
        kind = type(error)
        exact = getattr(builtins, kind.__name__, None) is kind and not hasattr(error, "__notes__")
        encoder = Encoder(describe)
        args = encoder.encode(error.args)
        name = kind.__name__ if exact and encoder.is_exact else None
        return ["error", error_kind(error), name, args, error_text(error)]

    def _do_names(self, names: Sequence[str]) -> Message:
        """The names that the program defines, as it left them."""
        kinds: dict[str, object] = {}
        for name in names:
            if name in self._namespace:
                value: object = self._namespace[name]
                if isinstance(value, types.ModuleType):
                    kinds[name] = {"module": value.__name__}
                else:
                    kinds[name] = {"value": self._encode(value)}
        return ["value", kinds]

    def _do_call(self, function: object, args: Sequence[object], kwargs: object) -> Message:
        values = [self._decoder.decode(arg) for arg in args]
        named = self._decoder.decode(kwargs)
        result = self._decoder.decode(function)(*values, **named)
        changed: list[tuple[int, object]] = []
        for index, value in enumerate(values):
            if type(value) in _MUTABLE and (after := self._encode(value)) != args[index]:
                changed.append((index, after))
        encoder = Encoder(self._refer)
        exact = self._encode(named) == kwargs
        return ["value", encoder.encode(result), changed, exact and encoder.is_exact]

    def _do_get(self, target: object, name: str) -> Message:
        return ["value", self._encode(getattr(self._decoder.decode(target), name))]

    def _do_set(self, target: object, name: str, value: object) -> Message:
        setattr(self._decoder.decode(target), name, self._decoder.decode(value))
        return ["value", None]

    def _do_next(self, target: object) -> Message:
        return ["value", self._encode(next(self._decoder.decode(target)))]

    def _do_operator(self, name: str, *operands: object) -> Message:
        result = _OPERATORS[name](*(self._decoder.decode(operand) for operand in operands))
        return ["value", self._encode(result)]

    def _encode(self, value: object) -> object:
        return Encoder(self._refer).encode(value)

    def _refer(self, value: object) -> object:
        self._objects.append(value)
        return {"ref": len(self._objects) - 1}

    def _callback(self, number: int) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            answer = self.link.request(
                "callback", number, [self._encode(arg) for arg in args], self._encode(kwargs)
            )
            if answer[0] != "value":
                raise RuntimeError(answer[-1])
            return self._decoder.decode(answer[1])

        return call


# ---------------------------------------------------------------- the side of the tests


class Remote:
    """Something of the program's that is no data: what can be done with it is to call it, to ask
    for its members and to read it as data. Anything else makes the test odd.
    """

    __slots__ = ("_ref", "_side")

    def __init__(self, side: TestSide, ref: int) -> None:
        object.__setattr__(self, "_side", side)
        object.__setattr__(self, "_ref", ref)

    def __call__(self, *args: object, **kwargs: object) -> Any:  # noqa: ANN401, D102
        return _side(self).call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return _side(self).ask("get", {"ref": ref_of(self)}, name)

    def __setattr__(self, name: str, value: object) -> None:
        side = _side(self)
        side.ask("set", {"ref": ref_of(self)}, name, side.encode(value))

    def __iter__(self) -> Iterator[Any]:
        iterator = _operate(self, "iter")
        return iterator if isinstance(iterator, Remote) else iter(iterator)

    def __next__(self) -> Any:  # noqa: ANN401
        return _side(self).ask("next", {"ref": ref_of(self)})

    def __hash__(self) -> int:
        return _side(self).odd("an object of the program is looked up")


def _operate(remote: Remote, name: str, *operands: object) -> Any:  # noqa: ANN401
    side = _side(remote)
    return side.ask("operator", name, {"ref": ref_of(remote)}, *map(side.encode, operands))


def _side(remote: Remote) -> TestSide:
    return object.__getattribute__(remote, "_side")


def ref_of(remote: Remote) -> int:
    """The number that the program knows an object by."""
    return object.__getattribute__(remote, "_ref")


def _define_operators() -> None:
    def alone(name: str) -> Callable[..., Any]:
        def operate(remote: Remote, *operands: object) -> object:
            return _operate(remote, name, *operands)

        return operate

    def odd(name: str) -> Callable[..., Any]:
        def operate(remote: Remote, *_: object) -> object:
            return _side(remote).odd(f"an object of the program is asked for {name}")

        return operate

    for name in ("len", "str", "repr", "int", "float", "bool", "index", "abs", "neg"):
        setattr(Remote, f"__{name}__", alone(name))
    for name in ("getitem", "setitem", "delitem"):  # a key is an input, not an expected value
        setattr(Remote, f"__{name}__", alone(name))
    for name in _NOT_HANDED_ON.split():
        setattr(Remote, f"__{name}__", odd(f"__{name}__"))


_NOT_HANDED_ON = """
    eq ne lt le gt ge contains add sub mul matmul truediv floordiv mod divmod pow lshift rshift and
    or xor radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand ror rxor
    iadd isub imul itruediv ifloordiv imod ipow iand ior ixor pos invert complex round trunc floor
    ceil enter exit aenter aexit aiter anext await instancecheck subclasscheck format bytes reversed
    copy deepcopy fspath dir
"""
_define_operators()

# An exception of the program arrives as its nearest builtin class, but never as one of these: they
# would end a loop over `map` or the tests themselves instead of failing them.
_SILENT = (StopIteration, StopAsyncIteration)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class TestSide:
    """Asks the program."""

    __test__ = False  # pytest collects classes by their name

    def __init__(
        self, reader: IO[bytes], writer: IO[bytes], limit: int, say: Callable[[str], None]
    ) -> None:
        self._link = Link(reader, writer, self._handle, limit)
        self._say = say  # what makes the tests odd
        self._callbacks: list[Callable[..., object]] = []
        self.inexact: str | None = None  # what did not arrive as it left, since this was last None
        self._decoder = Decoder({"ref": lambda ref: Remote(self, int(ref))})

    def names(self, wanted: Sequence[str]) -> dict[str, Any]:
        """The values of the program's names, of those wanted. Modules are imported here."""
        kinds = cast("dict[str, dict[str, Any]]", self._value(self._link.request("names", wanted)))
        found: dict[str, Any] = {}
        for name, kind in kinds.items():
            ((word, content),) = kind.items()
            found[name] = _module(content) if word == "module" else self._decoder.decode(content)
        return found

    def odd(self, why: str) -> NoReturn:
        """Say that what the tests find from here on is no verdict."""
        self._say(why)
        raise TypeError(why)

    def ask(self, *request: object) -> Any:  # noqa: ANN401
        """Send a request and return the value that it is answered with, or raise its error."""
        answer = self._link.request(*request)
        if answer[0] == "stop" and request[0] == "next":
            raise StopIteration
        return self._decode(self._value(answer))

    def call(self, function: Remote, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:  # noqa: ANN401
        """Call a function of the program; what it changes in place in its arguments is changed."""
        encoded = [self.encode(arg) for arg in args]
        answer = self._link.request(
            "call", {"ref": ref_of(function)}, encoded, self.encode(dict(kwargs))
        )
        value = self._decode(self._value(answer))
        changed, exact = answer[2:] if len(answer) == 4 else ((), True)
        if not exact:
            self.inexact = "a value is not of a builtin type, or an argument by name has changed"
        for index, content in changed:
            if any(type(part) in _MUTABLE for part in _parts(args[index])):
                self.inexact = "an argument has changed inside"
            _replace(args[index], self._decode(content))
        return value

    def encode(self, value: object) -> object:
        """What crosses for a value of a test."""
        encoder = Encoder(self._refer)
        content = encoder.encode(value)
        if not encoder.is_exact:
            self.odd("the test passes a value that is not of a builtin type")
        return content

    def _refer(self, value: object) -> object:
        if isinstance(value, Remote):
            return {"ref": ref_of(value)}
        name = getattr(value, "__name__", "")
        if isinstance(name, str) and getattr(builtins, name, self) is value:
            return {"builtin": name}
        if callable(value) and type(value) in _FUNCTIONS:
            self._callbacks.append(value)
            return {"callback": len(self._callbacks) - 1}
        self.odd(f"the test passes a {type(value).__name__}")

    def _handle(self, what: str, *parts: Any) -> Message:  # noqa: ANN401
        """Run a function that a test has passed; the program may ask for nothing else."""
        if what != "callback":
            raise PeerGoneError
        try:
            number, args, kwargs = cast("tuple[int, list[object], object]", parts)
            function = self._callbacks[number]
            result = function(*map(self._decode, args), **self._decode(kwargs))
            return ["value", self.encode(result)]
        except Exception as error:  # noqa: BLE001 - the program is told of it
            return ["error", error_text(error)]

    def _decode(self, content: object) -> Any:  # noqa: ANN401
        try:
            return self._decoder.decode(content)
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            raise PeerGoneError from error

    def _value(self, answer: Message) -> object:
        if answer[0] == "value" and len(answer) > 1:
            return answer[1]
        if answer[0] == "error" and len(answer) == 5:
            self._raise(*answer[1:])
        raise PeerGoneError

    def _raise(self, kind: object, name: object, args: object, text: object) -> NoReturn:
        found = getattr(builtins, name, None) if isinstance(name, str) else None
        error: Exception | None = None
        if isinstance(found, type) and issubclass(found, Exception) and found not in _SILENT:
            try:
                error = found(*self._decode(args))
            except TypeError:
                error = None
        if error is None:
            error = RuntimeError(str(text))
            self.inexact = f"an exception that is none of Python's own ({text})"
        error.kind_in_program = kind  # pyright: ignore[reportAttributeAccessIssue]
        raise error


def _parts(value: object) -> Iterator[object]:
    """What a container of a test holds."""
    match value:
        case dict():
            yield from cast("dict[object, object]", value).values()
        case list() | deque():
            yield from cast("list[object]", value)
        case _:
            pass


def _module(name: str) -> object:
    """The module itself, not what the program made of it."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        return None


def _replace(target: object, value: object) -> None:
    """Give a mutable argument the contents that the program left in its copy."""
    if type(target) is not type(value):
        return
    match target:
        case list() | bytearray():
            target[:] = cast("Any", value)
        case dict() | set():
            cast("Any", target).clear()
            cast("Any", target).update(value)
        case deque():
            cast("Any", target).clear()
            cast("Any", target).extend(value)
        case _:
            pass
