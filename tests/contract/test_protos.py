"""Our protos are the official ones, minus what Steno does not use.

``envoy-data-plane`` carries Envoy's definitions as betterproto2 field metadata, grpclib
the health protocol as a descriptor. Each of our messages must have an official
counterpart whose field of the same number has the same name, type and repetition.
"""

import dataclasses
import enum
import subprocess
import sys
import typing
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from extproc.pb import access_log_pb2, ext_proc_pb2
from tests.paths import PROJECT

with warnings.catch_warnings():
    # Its generated classes use a pydantic decorator in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.data.accesslog import v3 as accesslog
    from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc_filter
    from envoy_data_plane.envoy.service.accesslog import v3 as accesslog_service
    from envoy_data_plane.envoy.service.ext_proc import v3 as ext_proc

# Where an official message or enum of a given name is looked for, in this order.
OFFICIAL: dict[str, tuple[ModuleType, ...]] = {
    "steno.ext_proc.v3": (ext_proc, ext_proc_filter, core),
    "steno.access_log.v3": (accesslog, accesslog_service, core),
}

TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}

# What betterproto2 unwraps to a Python type, by the message on the wire.
UNWRAPPED = {
    "google.protobuf.Timestamp": "datetime",
    "google.protobuf.Duration": "timedelta",
    "google.protobuf.UInt32Value": "int",
}


def messages(file: FileDescriptor) -> list[Descriptor]:
    """Every message of a file, nested ones included, map entries not."""
    found: list[Descriptor] = []
    pending = list(file.message_types_by_name.values())
    while pending:
        message = pending.pop()
        pending.extend(message.nested_types)
        if not message.GetOptions().map_entry:
            found.append(message)
    return found


def enums(file: FileDescriptor) -> list[EnumDescriptor]:
    """Every enum of a file, nested ones included."""
    nested = [each for message in messages(file) for each in message.enum_types]
    return [*file.enum_types_by_name.values(), *nested]


ENVOY_FILES = (ext_proc_pb2.DESCRIPTOR, access_log_pb2.DESCRIPTOR)
MESSAGES = [each for file in ENVOY_FILES for each in messages(file)]
ENUMS = [each for file in ENVOY_FILES for each in enums(file)]


def flat(full_name: str, package: str) -> str:
    """``pkg.Outer.Inner`` as betterproto2 names it: ``OuterInner``, acronyms as words."""
    return full_name.removeprefix(package + ".").replace(".", "").replace("HTTP", "Http")


def official(descriptor: Descriptor | EnumDescriptor) -> Any:
    """The official class of the same name."""
    name = flat(descriptor.full_name, descriptor.file.package)
    for module in OFFICIAL[descriptor.file.package]:
        if hasattr(module, name):
            return getattr(module, name)
    raise LookupError(f"{descriptor.full_name}: nothing official is called {name}")


def class_names(annotation: object) -> set[str]:
    """The names of all classes in a type annotation, ``Annotated`` and ``| None`` opened."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return {getattr(annotation, "__name__", str(annotation))}
    return {name for each in arguments for name in class_names(each)}


def differences(message: Descriptor) -> list[str]:
    """What is not official about a message of ours."""
    theirs_class = official(message)
    hints = typing.get_type_hints(theirs_class)
    theirs = {field.metadata["betterproto"].number: field for field in dataclasses.fields(theirs_class)}
    return [
        f"{ours.full_name} = {ours.number}: {shape(ours)} is not {expected}"
        for ours in message.fields
        if (expected := official_shape(theirs.get(ours.number), hints)) != shape(ours)
    ]


def shape(field: FieldDescriptor) -> tuple[object, ...]:
    """Name, type, repetition, oneof and target of a field of ours."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[each] for each in ("key", "value"))
        return field.name, f"map<{TYPES[key.type]}, {TYPES[value.type]}>", False, None, target_name(value)
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.name, TYPES[field.type], field.is_repeated, oneof, target_name(field)


def target_name(field: FieldDescriptor) -> str | None:
    """The class that a message or enum field refers to, as betterproto2 has it."""
    target = field.message_type or field.enum_type
    if target is None:
        return None
    return UNWRAPPED.get(target.full_name) or flat(target.full_name, target.file.package)


def official_shape(field: Any, hints: dict[str, object]) -> tuple[object, ...] | None:
    """The same five of an official field."""
    if field is None:
        return None
    metadata = field.metadata["betterproto"]
    kind, referring = metadata.proto_type, metadata.proto_type
    if kind == "map":
        key, value = metadata.map_meta
        kind, referring = f"map<{key.proto_type}, {value.proto_type}>", value.proto_type
    refers = referring in {"message", "enum"}
    names = class_names(hints[field.name]) - {"NoneType", "dict", "list", "str"} if refers else {None}
    assert len(names) == 1, names
    return field.name, kind, metadata.repeated, metadata.group, names.pop()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.full_name)
def test_every_field_has_the_official_number_name_and_type(message: Descriptor) -> None:
    assert differences(message) == []


@pytest.mark.parametrize("ours", ENUMS, ids=lambda each: each.full_name)
def test_every_enum_has_all_official_values_and_no_others(ours: EnumDescriptor) -> None:
    theirs = official(ours)
    assert issubclass(theirs, enum.Enum)
    assert {value.name: value.number for value in ours.values} == {each.name: each.value for each in theirs}


@pytest.mark.parametrize(
    ("attribute", "wrong"),
    [
        ("number", 7),
        ("name", "bodies"),
        ("type", FieldDescriptorProto.TYPE_STRING),
        ("label", FieldDescriptorProto.LABEL_REPEATED),
    ],
)
def test_the_comparison_notices_a_field_that_is_not_official(attribute: str, wrong: object) -> None:
    file = FileDescriptorProto()
    ext_proc_pb2.DESCRIPTOR.CopyToProto(file)
    pool = DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    (body,) = (each for each in file.message_type if each.name == "HttpBody")
    setattr(body.field[0], attribute, wrong)
    pool.AddSerializedFile(file.SerializeToString())
    assert len(differences(pool.FindMessageTypeByName("steno.ext_proc.v3.HttpBody"))) == 1


def test_the_comparison_notices_a_field_that_refers_to_another_message() -> None:
    file = FileDescriptorProto()
    ext_proc_pb2.DESCRIPTOR.CopyToProto(file)
    pool = DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    (request,) = (each for each in file.message_type if each.name == "ProcessingRequest")
    request.field[0].type_name = ".steno.ext_proc.v3.HttpTrailers"
    pool.AddSerializedFile(file.SerializeToString())
    assert len(differences(pool.FindMessageTypeByName("steno.ext_proc.v3.ProcessingRequest"))) == 1


HEALTH_TWINS = """
from grpclib.health.v1 import health_pb2 as official
from extproc.pb import health_pb2 as ours

def shape(file):
    return {
        message.name: (
            [(f.name, f.number, f.type) for f in message.fields],
            [(e.name, [(v.name, v.number) for v in e.values]) for e in message.enum_types],
        )
        for message in file.message_types_by_name.values()
    }

assert shape(ours.DESCRIPTOR) == shape(official.DESCRIPTOR), shape(ours.DESCRIPTOR)
"""


def run_python(code: str) -> None:
    """Run ``code`` in a process of its own: the descriptor pool is one per process."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_health_messages_are_the_official_ones() -> None:
    run_python(HEALTH_TWINS)


OURS = "import extproc.pb.ext_proc_pb2, extproc.pb.access_log_pb2, extproc.pb.health_pb2"
THEIRS = "import envoy_data_plane.envoy.service.ext_proc.v3, grpclib.health.v1.health_pb2"
# A package that registers the official names themselves, as grpcio-health-checking and
# protoc's output for Envoy's own files do.
REGISTERED = """
from google.protobuf import descriptor_pb2, descriptor_pool
for name, package in (
    ("grpc/health/v1/health.proto", "grpc.health.v1"),
    ("envoy/service/ext_proc/v3/external_processor.proto", "envoy.service.ext_proc.v3"),
    ("envoy/data/accesslog/v3/accesslog.proto", "envoy.data.accesslog.v3"),
):
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message in ("HealthCheckRequest", "ProcessingRequest", "HttpAccessLogEntry"):
        file.message_type.add(name=message)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""


@pytest.mark.parametrize(
    "others", [THEIRS, REGISTERED], ids=["envoy-data-plane and grpclib", "official names"]
)
def test_our_definitions_live_beside_others_whoever_comes_first(others: str) -> None:
    run_python(f"{OURS}\n{others}")
    run_python(f"{others}\n{OURS}")


def test_the_checked_in_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, PROJECT / "protos" / "generate.py", tmp_path], check=True, cwd=PROJECT, timeout=60
    )
    fresh = {path.name: path.read_text() for path in (tmp_path / "extproc" / "pb").iterdir()}
    checked_in = {path.name: path.read_text() for path in (PROJECT / "extproc" / "pb").glob("*_pb2.py*")}
    assert sorted(fresh) == sorted(checked_in)
    for name, text in fresh.items():
        assert checked_in[name] == text, f"{name}: run python protos/generate.py"
