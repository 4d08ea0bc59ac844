"""What a response brings forth: deltas to items and to the events that tell of them.

Not here: the response around them (`responses.py`).
Invariant: every item that is added is done before the next is added, and its deltas join to what
its done events hold.
"""

from typing import Any

from cupola.serve.http.responses_items import new_id
from cupola.serve.http.responses_store import Item
from cupola.serve.http.tools import Delta, Reasoning, Text, ToolArguments, ToolBegin

Event = dict[str, Any]


class Output:
    """Grows with deltas; each method returns the events of what it adds."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._pieces: list[str] = []
        self._open = False
        self._logprobs: list[Any] = []

    def add(self, delta: Delta, logprobs: list[Any]) -> list[Event]:
        """Adds a delta.

        Args:
            delta: what comes.
            logprobs: of the tokens of a text, where they were asked for.
        """
        match delta:
            case Text(text):
                events = self._ensure("message")
                self._logprobs += logprobs
                return [*events, self._piece("response.output_text.delta", text, content_index=0, logprobs=logprobs)]
            case Reasoning(text):
                events = self._ensure("reasoning")
                return [*events, self._piece("response.reasoning_text.delta", text, content_index=0)]
            case ToolBegin(_, id, name):
                return [*self.end(), *self._begin("function_call", call_id=id, name=name, arguments="")]
            case ToolArguments(_, text):
                return [self._piece("response.function_call_arguments.delta", text)]

    def end(self, status: str = "completed") -> list[Event]:
        """Ends the item that is open, if one is."""
        if not self._open:
            return []
        item, text = self.items[-1], "".join(self._pieces)
        events: list[Event] = []
        if item["type"] == "function_call":
            item["arguments"] = text
            events.append(self._event("response.function_call_arguments.done", arguments=text))
        else:
            part = self._part(item["type"], text)
            item["content"] = [part]
            more = {"logprobs": self._logprobs} if item["type"] == "message" else {}
            kind = "output_text" if item["type"] == "message" else "reasoning_text"
            events.append(self._event(f"response.{kind}.done", content_index=0, text=text, **more))
            events.append(self._event("response.content_part.done", content_index=0, part=part))
        item["status"] = status
        events.append({"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": dict(item)})
        self._open, self._pieces, self._logprobs = False, [], []
        return events

    def finish(self, status: str) -> list[Event]:
        """Ends the output, which has at least one item; `status` is that of its last."""
        return [*([] if self.items else self._ensure("message")), *self.end(status)]

    def _ensure(self, kind: str) -> list[Event]:
        if self._open and self.items[-1]["type"] == kind:
            return []
        more: Item = {"role": "assistant", "content": []} if kind == "message" else {"summary": [], "content": []}
        events = [*self.end(), *self._begin(kind, **more)]
        return [*events, self._event("response.content_part.added", content_index=0, part=self._part(kind, ""))]

    def _begin(self, kind: str, **more: Any) -> list[Event]:
        item = {"id": new_id(kind), "type": kind, "status": "in_progress", **more}
        self.items.append(item)
        self._open = True
        return [{"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": dict(item)}]

    def _part(self, kind: str, text: str) -> dict[str, Any]:
        if kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self._logprobs)}

    def _piece(self, type: str, text: str, **more: Any) -> Event:
        self._pieces.append(text)
        return self._event(type, delta=text, **more)

    def _event(self, type: str, **more: Any) -> Event:
        return {"type": type, "output_index": len(self.items) - 1, "item_id": self.items[-1]["id"], **more}
