"""Where a model's program runs: a locked room that knows nothing and reaches nobody.

    grader process ── frames ──▶ keeper (clean interpreter, inside the room) ──fork──▶ one child a test

`host` is outside: it chooses a mechanism by trying, starts the keeper and reads what it reports. `keeper` runs
inside and starts one child a test; `walls` builds the room, `syscalls` is the list of what a child may ask of the
kernel, `escapes` is the self-test that a mechanism has to pass before it is used.

What holds, whatever the program does:

* the expected results never enter the room, so they cannot be read there; they are compared outside;
* a child's report is its exit status (from the kernel, through the keeper), its output and one value: to forge
  them it would have to know the answer;
* a child starts no process and no socket, opens no file but the standard library, and writes none: seccomp
  allows what is listed and refuses the rest;
* the environment is empty, the user is not root, and whatever kills the grader kills keeper and child.
"""
