"""Where a model's program runs: a locked place that knows nothing and reaches nobody.

    grader process ── frames ──▶ supervisor (clean interpreter, inside the sandbox) ──fork──▶ one child a test

`sandbox` is outside: it chooses a mechanism by trying, starts the supervisor and reads what it reports. `supervisor`
runs inside and starts one child a test; `isolation` builds its walls, `syscalls` is the list of what a child may ask
of the kernel, `self_test` is what a mechanism has to pass before it is used.

What holds, whatever the program does:

* the expected results never enter the sandbox, so they cannot be read there; they are compared outside;
* a child's report is its exit status (from the kernel, through the supervisor), its output and one value: to forge
  them it would have to know the answer;
* a child starts no process and no socket, opens no file but the standard library, and writes none: seccomp
  allows what is listed and refuses the rest;
* the environment is empty, the user is not root, and whatever kills the grader kills supervisor and child.
"""
