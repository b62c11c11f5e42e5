"""A module's variables and outputs as tables. usage: tables.py MODULE_FOLDER"""

import json
import re
import sys

import hcl2


def unquoted(value):
    return json.loads(value) if isinstance(value, str) and value.startswith('"') else value


def expression(value):
    """python-hcl2 writes expressions as ${...}."""
    match = re.fullmatch(r"\$\{(.*)\}", value, re.S) if isinstance(value, str) else None
    return match.group(1) if match else value


def type_of(value):
    text = re.sub(r"\s+", " ", expression(value))
    members = re.fullmatch(r"object\(\{(.*)\}\)", text)
    if not members:
        return f"`{text}`"
    # `optional(number, 2)` is a number that is 2; a cell is narrow.
    parts, depth, part = [], 0, ""
    for letter in members.group(1):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    parts.append(part.strip())
    shown = []
    for part in parts:
        name, kind = (piece.strip() for piece in part.split("=", 1))
        optional = re.fullmatch(r"optional\((.*)\)", kind)
        if optional:
            kind, _, default = optional.group(1).partition(", ")
            shown.append(f"`{name}` {kind}" + (f" = `{default}`" if default else "?"))
        else:
            shown.append(f"`{name}` {kind}")
    return "<br>".join(shown)


def default_of(variable):
    if "default" not in variable:
        return "**needed**"
    value = unquoted(expression(variable["default"]))
    return "" if value in (None, "null", {}, [], "") else f"`{json.dumps(value)}`"


def flat(text):
    """One line for a cell; python-hcl2 leaves the marks of a heredoc in place."""
    heredoc = re.fullmatch(r'"?<<-?(\w+)\n(.*)\n\s*\1"?', text, re.S)
    text = " ".join(heredoc.group(2).split()) if heredoc else unquoted(text)
    return text.replace("|", "\\|").replace("\n", " ")


def blocks(path, kind):
    with open(path, encoding="utf-8") as file:
        for block in hcl2.load(file).get(kind, []):
            for name, body in block.items():
                yield unquoted(name), body


def main(folder):
    print("| variable | type | default | |\n|---|---|---|---|")
    for name, body in blocks(f"{folder}/variables.tf", "variable"):
        print(f"| `{name}` | {type_of(body['type'])} | {default_of(body)} | {flat(body['description'])} |")
    print("\n| output | |\n|---|---|")
    for name, body in blocks(f"{folder}/outputs.tf", "output"):
        print(f"| `{name}` | {flat(body['description'])} |")


if __name__ == "__main__":
    main(sys.argv[1])
