"""A provider that knows its schema and nothing else: enough for `terraform init`, `validate`, and `test` with mock_provider.

usage: provider.py SCHEMA.json     started by terraform, which speaks the plugin protocol with it
"""

import json
import sys

import tf.provider
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

NESTING = {
    "single": pb.Schema.NestedBlock.SINGLE,
    "list": pb.Schema.NestedBlock.LIST,
    "set": pb.Schema.NestedBlock.SET,
    "map": pb.Schema.NestedBlock.MAP,
}
# `write_only` is field 11 of the protocol since terraform 1.11, and younger than the stubs of the package.
WRITE_ONLY = bytes([11 << 3, 1])


def attribute(name, known):
    made = pb.Schema.Attribute(
        name=name,
        type=json.dumps(known["type"]).encode(),
        required=known.get("required", False),
        optional=known.get("optional", False),
        computed=known.get("computed", False),
    )
    if known.get("write_only"):
        made.MergeFromString(WRITE_ONLY)
    return made


def block(known):
    return pb.Schema.Block(
        attributes=[attribute(name, inner) for name, inner in known["attributes"].items()],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                nesting=NESTING[inner["nesting"]],
                min_items=inner["min"],
                max_items=inner["max"],
                block=block(inner["block"]),
            )
            for name, inner in known["blocks"].items()
        ],
    )


def schema(known):
    return pb.Schema(version=0, block=block(known))


class StandIn(rpc.ProviderServicer):
    def __init__(self, _provider):
        with open(sys.argv[1], encoding="utf-8") as file:
            self.known = json.load(file)

    def GetProviderSchema(self, request, context):
        provider = next(iter(self.known["provider"].values()))
        return pb.GetProviderSchema.Response(
            provider=schema(provider),
            resource_schemas={name: schema(known) for name, known in self.known["resource"].items()},
            data_source_schemas={name: schema(known) for name, known in self.known["data"].items()},
        )

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request, context):
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request, context):
        return pb.ConfigureProvider.Response()

    def GetFunctions(self, request, context):
        return pb.GetFunctions.Response()

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()


tf.provider.ProviderServicer = StandIn

from tf.runner import run_provider  # noqa: E402  it binds the servicer when it is called

run_provider(None)
