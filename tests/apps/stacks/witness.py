"""Runs inside gdb, attached to a program: tells the backtrace of every connect and send, as gdb sees it.

One line of JSON a call, behind the word WITNESS. The line READY says that no call will be missed from now on.
"""

import json

import gdb

# What the kernel shows in rax while a system call has not returned: -ENOSYS.
ENTERING = -38


def demangled(name):
    """The name as GNU's demangler reads it."""
    if not name.startswith(("_Z", "_R", "_D")):
        return name
    text = gdb.execute("demangle -- " + name, to_string=True).strip()
    return name if text.startswith("Can't demangle") else text


def described(frame):
    if frame.type() == gdb.SIGTRAMP_FRAME:
        return {"function": "<signal handler called>", "file": None, "line": None}
    function = frame.function()
    name = function.linkage_name if function else frame.name()
    place = frame.find_sal()
    return {
        "function": demangled(name) if name else None,
        "file": place.symtab.fullname() if place.symtab else None,
        "line": place.line if place.symtab and place.line else None,
    }


def backtrace():
    frame, frames = gdb.newest_frame(), []
    while frame is not None:
        # A function that ended with a jump to another has left the stack; gdb only infers that it ran.
        if frame.type() != gdb.TAILCALL_FRAME:
            frames.append(described(frame))
        frame = frame.older()
    return frames


def main():
    for setting in [
        "pagination off",
        "confirm off",
        "debuginfod enabled off",
        "print inferior-events off",
        "print thread-events off",
        "backtrace past-main on",
        "backtrace limit 600",
    ]:
        gdb.execute("set " + setting)
    for signal in ["SIGUSR1", "SIGUSR2", "SIGILL", "SIGSYS", "SIGSEGV", "SIGPIPE"]:
        gdb.execute("handle %s nostop noprint pass" % signal, to_string=True)
    gdb.execute("catch syscall connect sendto", to_string=True)
    print("READY", flush=True)
    while True:
        gdb.execute("continue", to_string=True)
        thread = gdb.selected_thread()
        if thread is None or not thread.is_valid():
            break
        newest = gdb.newest_frame()
        if int(newest.read_register("rax")) != ENTERING:
            continue
        call = {
            "call": "connect" if int(newest.read_register("orig_rax")) == 42 else "send",
            "fd": int(newest.read_register("rdi")),
            "frames": backtrace(),
        }
        print("WITNESS " + json.dumps(call), flush=True)


main()
