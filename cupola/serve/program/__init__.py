"""The frontend language: programs that write text, let a model fill in places, and branch.

A program only says what is to be done; a state does it in order, in the background, and branches do
it at the same time. The back-end is our engine in this process, or any OpenAI-compatible endpoint.

Example:
    from cupola.serve.program import Local, assistant, gen, program, select, system, user

    @program
    def essay(s, text):
        s += system("You grade essays.")
        s += user("The essay: " + text)
        branches = s.fork(3)
        for branch, side in zip(branches, ("clarity", "depth", "style"), strict=True):
            branch += user(f"Grade its {side}.")
            branch += assistant(gen("grade", choices=["A", "B", "C"]))
        s.join(branches)
        s += user("The grades were " + ", ".join(s["grade"]) + ". Sum up.")
        s += assistant("In short: " + gen("summary", stop="\\n"))
        s += user("Is it good?") + assistant(select("good", ["yes", "no"]))

    state = essay.run(text="...", backend=Local(served))
    for piece in state.stream("summary"):
        print(piece, end="")
    states = essay.run_batch([{"text": one} for one in essays], backend=Local(served), concurrency=8)

Source: SGLang, Zheng et al., arXiv 2312.07104, section 2.
"""

from cupola.serve.program.backend import Backend, Call, Session
from cupola.serve.program.choose import Method, Score
from cupola.serve.program.definition import Ahead, Program, program
from cupola.serve.program.endpoint import Api, Dialect, Endpoint
from cupola.serve.program.errors import BackendError, ProgramError
from cupola.serve.program.expression import assistant, gen, select, separate_reasoning, system, user
from cupola.serve.program.local import Local
from cupola.serve.program.state import Join, State
from cupola.serve.program.transcript import Role, Transcript
from cupola.serve.program.variable import Result

__all__ = [
    "Ahead",
    "Api",
    "Backend",
    "BackendError",
    "Call",
    "Dialect",
    "Endpoint",
    "Join",
    "Local",
    "Method",
    "Program",
    "ProgramError",
    "Result",
    "Role",
    "Score",
    "Session",
    "State",
    "Transcript",
    "assistant",
    "gen",
    "program",
    "select",
    "separate_reasoning",
    "system",
    "user",
]
