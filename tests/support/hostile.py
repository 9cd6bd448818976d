"""What a grader computes on until it is killed."""

INTEGRAL = r"\int_0^1\int_0^1\int_0^1\int_0^1 x^{y^{z}} \sin(x^{y}+z^{w}) dx dy dz dw"
HANGS = rf"\boxed{{{INTEGRAL}}}"
