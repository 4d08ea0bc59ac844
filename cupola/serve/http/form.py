"""A body of multipart/form-data: fields and files by their names.

Not here: what they mean. Invariant: whatever the bytes, the outcome is a form or an `InvalidRequest`;
a field that stands twice is refused unless its name ends in [].
Source: RFC 7578; RFC 2046, section 5.1.
"""

import dataclasses
from email.message import Message

from cupola.serve.errors import InvalidRequest
from cupola.serve.http.errors import WrongMediaType

_PARTS = 64
_HEAD_BYTES = 4096
_BOUNDARY_CHARACTERS = 70


@dataclasses.dataclass(frozen=True)
class File:
    """A file in a form.

    Args:
        name: as the client calls it; "" where it does not.
        data: its bytes.
    """

    name: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Form:
    """A form.

    Args:
        fields: texts by name, in order; one, but for names that end in [].
        files: by name.
    """

    fields: dict[str, list[str]]
    files: dict[str, File]


def read_form(body: bytes, content_type: str) -> Form:
    """Returns the form in a body.

    Args:
        content_type: the header, which names what stands between the parts.

    Raises:
        WrongMediaType: the body is something else, by its own account.
        InvalidRequest: it is no form, or has a name twice.
    """
    header = Message()
    header["content-type"] = content_type or "text/plain"
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary or len(boundary) > _BOUNDARY_CHARACTERS:
        raise WrongMediaType(
            f"the body is {header.get_content_type()[:100]}", remedy="Send a form: multipart/form-data with a boundary."
        )
    # The first boundary stands at the beginning, without the line break that belongs to the others.
    between = b"\r\n--" + boundary.encode(errors="replace")
    first, *parts = (b"\r\n" + body).split(between, _PARTS + 2)
    if len(parts) < 2 or first.strip() or not parts[-1].startswith(b"--") or len(parts) > _PARTS + 1:
        problem = f"has more than {_PARTS} parts" if len(parts) > _PARTS + 1 else "is no whole form"
        raise InvalidRequest(f"the body {problem}", remedy="Send multipart/form-data, as curl -F writes it.")
    form = Form({}, {})
    for part in parts[:-1]:
        _add(form, part)
    return form


def _add(form: Form, part: bytes) -> None:
    head, found, data = part.partition(b"\r\n\r\n")
    if not found or len(head) > _HEAD_BYTES:
        raise InvalidRequest("a part of the form has no head", remedy="Send it as curl -F writes it.")
    told = Message()
    for line in head.decode("utf-8", errors="replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            told["content-disposition"] = value.strip()
    name = told.get_param("name", header="content-disposition")
    if not isinstance(name, str) or told.get_content_disposition() != "form-data":
        raise InvalidRequest(
            "a part of the form has no name", remedy='Send Content-Disposition: form-data; name="...".'
        )
    if name in form.files or (name in form.fields and not name.endswith("[]")):
        raise InvalidRequest(f"{name[:100]} stands twice in the form", where=name[:100], remedy="Send it once.")
    file_name = told.get_filename()
    if file_name is not None:
        form.files[name] = File(file_name, data)
        return
    try:
        form.fields.setdefault(name, []).append(data.decode())
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name[:100]} is not UTF-8", where=name[:100], remedy="Send text in UTF-8.") from None
