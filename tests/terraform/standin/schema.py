"""Provider schemas without a provider: read from the generated TypeScript in the npm packages @cdktf/provider-*.

usage: schema.py PACKAGE.tgz OUT.json TYPE...     TYPE is `resource/aws_sqs_queue` or `data/aws_region`

Each package carries, per resource, what the real provider said about itself: names, types, what is required and what is
computed. Only the wanted types are written, so that a stand-in starts in half a second.
"""

import base64
import json
import re
import sys
import tarfile

SCALARS = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}

FLAGS = re.compile(r"^  // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n(.*?)(?=^  // |\Z)", re.S | re.M)
GETTER = re.compile(r"this\.get(\w+)Attribute\(")
HCL_FUNCTION = re.compile(r"^export function (\w+)ToHclTerraform\(.*?\n(.*?)^}", re.S | re.M)
HCL_ROOT = re.compile(r"synthesizeHclAttributes\(\).*?\{\n(.*?)^  }", re.S | re.M)
HCL_ENTRY = re.compile(r'^\s+(\w+): \{\n\s+value: (.*?),\n\s+isBlock: (true|false),\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)"', re.S | re.M)
CLASS = re.compile(r"^export class (\w+) extends cdktf\.(\w+)", re.M)
KINDS = {"TerraformResource": "resource", "TerraformDataSource": "data", "TerraformProvider": "provider"}


def hcl_type(shape, element):
    """`list` of `stringList` is a list of text; what is not described is left open."""
    plain = re.fullmatch(r"(string|number|boolean|any)(List|Map)?(Map)?", element)
    if not plain:
        return "dynamic"
    kind = SCALARS[plain.group(1)]
    if plain.group(3):
        return ["map", ["list", kind]]
    if plain.group(2) == "Map":
        return ["map", kind]
    if plain.group(2) == "List":
        return ["set" if shape == "set" else "list", kind]
    return kind


def computed_type(body):
    getter = GETTER.search(body)
    if not getter:
        return "dynamic"
    name = re.sub(r"^(String|Number|Boolean|Any)(List|Map)?$", lambda m: m.group(1).lower() + (m.group(2) or ""), getter.group(1))
    if name == "List":
        return ["set" if "cdktf.Fn.tolist" in body else "list", "string"]
    return hcl_type("list", name)


class Source:
    """The TypeScript of one resource."""

    def __init__(self, text):
        starts = list(CLASS.finditer(text))
        ends = [following.start() for following in starts[1:]] + [len(text)]
        self.classes = {}
        self.root = None
        for start, end in zip(starts, ends):
            body = text[start.start():end]
            flags = {m.group(1): ([f == "true" for f in m.group(2, 3, 4)], m.group(5)) for m in FLAGS.finditer(body)}
            self.classes[start.group(1)] = flags
            if start.group(2) in KINDS:
                self.root = (start.group(1), KINDS[start.group(2)], body)
        self.functions = {m.group(1): entries(m.group(2)) for m in HCL_FUNCTION.finditer(text)}

    def schema(self):
        name, kind, body = self.root
        type_name = re.search(r'tfResourceType = "(\w+)"', body).group(1)
        root = HCL_ROOT.search(body)
        return kind, type_name, self.block(name, entries(root.group(1)) if root else {})

    def block(self, owner, known):
        flags = self.classes.get(owner, {})
        attributes, blocks = {}, {}

        def concrete(shape):
            # With an open type within a block terraform sends the block's list as a tuple with its own type. Nothing reads those.
            return ["list", "string"] if shape == "dynamic" and owner != self.root[0] else shape

        for name, ((computed, _, _), body) in flags.items():
            if name not in known and computed:
                attributes[name] = {"type": concrete(computed_type(body)), "computed": True}
        for name, (value, is_block, shape, element) in known.items():
            (computed, _, required), _ = flags.get(name, ([False, True, False], ""))
            if is_block:
                function = re.search(r"(\w+)ToHclTerraform", value).group(1)
                inner = function[0].upper() + function[1:] + "OutputReference"
                many = "listMapperHcl" in value
                nesting = {"struct": "single"}.get(shape, shape)
                blocks[name] = {
                    "nesting": nesting,
                    "min": 1 if required and nesting in ("list", "set") else 0,
                    "max": 0 if many or nesting not in ("list", "set") else 1,
                    "block": self.block(inner, self.functions.get(function, {})),
                }
            else:
                attribute = {"type": concrete(hcl_type(shape, element)), "required": required}
                attribute["optional"] = not required
                attribute["computed"] = computed and not required
                attribute["write_only"] = name.endswith("_wo")
                attributes[name] = attribute
        return {"attributes": attributes, "blocks": blocks}


def entries(text):
    return {m.group(1): (m.group(2), m.group(3) == "true", m.group(4), m.group(5)) for m in HCL_ENTRY.finditer(text)}


def type_script(script):
    packed = re.search(r"sourceMappingURL=data:application/json;base64,(\S+)", script).group(1)
    return json.loads(base64.b64decode(packed))["sourcesContent"][0]


def folder_of(wanted):
    """`data/aws_iam_policy_document` is in data-aws-iam-policy-document, `resource/aws_sqs_queue` in sqs-queue."""
    kind, name = wanted.split("/")
    vendor, rest = name.split("_", 1)
    folder = rest.replace("_", "-")
    return f"data-{vendor}-{folder}" if kind == "data" else folder


def main(package, out, wanted):
    folders = {folder_of(name) for name in wanted} | {"provider"}
    found = {"provider": {}, "resource": {}, "data": {}}
    with tarfile.open(package) as archive:
        for member in archive:
            match = re.fullmatch(r"package/lib/([^/]+)/index\.js", member.name)
            if match and match.group(1) in folders:
                script = archive.extractfile(member).read().decode()
                kind, name, block = Source(type_script(script)).schema()
                found[kind][name] = block
    missing = [name for name in wanted if name.split("/")[1] not in found[name.split("/")[0]]]
    if missing:
        sys.exit(f"{package} knows nothing of {', '.join(missing)}")
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
