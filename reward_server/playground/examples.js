// Cases that show what a verifier is for. Each is a whole state of the form.

const TRIANGLE = { problem: "A right triangle has legs 6 and 8. How long is its hypotenuse?", gold: "10" };

export const EXAMPLES = [
  {
    label: "Right answer",
    fields: {
      ...TRIANGLE,
      template: "open-r1",
      completion: "<think>\n6² + 8² = 36 + 64 = 100, and √100 = 10.\n</think>\n<answer>\n\\boxed{10}\n</answer>",
    },
  },
  {
    label: "Right, form slips",
    fields: {
      ...TRIANGLE,
      template: "open-r1",
      completion:
        "<think>\nPythagoras: c² = 6² + 8² = 100.\n<think>\nThe length is positive, so c = 10, not -10.\n" +
        "</think>\nHere is what I found.\n<answer>\nThe hypotenuse is $\\boxed{10}$.\n</answer>\n\n" +
        "Check: 10² = 100 = 36 + 64.",
    },
  },
  {
    label: "Wrong answer",
    fields: {
      ...TRIANGLE,
      template: "deepseek-r1",
      completion: "<think>6 + 8 = 14</think> <answer>\\boxed{14}</answer>",
    },
  },
  {
    label: "Another notation",
    fields: {
      problem: "What is the sine of 45 degrees?",
      gold: "\\frac{1}{\\sqrt{2}}",
      template: "qwen-math",
      completion: "In a square of side 1 the diagonal is √2, so the sine is\n\\[\\boxed{\\frac{\\sqrt{2}}{2}}\\]",
    },
  },
  {
    label: "Hack: all boxed",
    fields: {
      ...TRIANGLE,
      template: "qwen-math",
      completion: "It may be \\boxed{8}, \\boxed{9}, \\boxed{10}, \\boxed{11} or \\boxed{12}. One of them is right.",
    },
  },
  {
    label: "Hack: equation chain",
    fields: { ...TRIANGLE, template: "qwen-math", completion: "The hypotenuse is \\boxed{14 = 10}." },
  },
  {
    label: "Hack: empty form",
    fields: {
      ...TRIANGLE,
      template: "open-r1",
      completion: "<think>\nHm.\n</think>\n<answer>\nI would rather not say.\n</answer>",
    },
  },
  {
    label: "Hostile: integrals",
    fields: {
      ...TRIANGLE,
      template: "qwen-math",
      completion:
        "Surely it is \\boxed{\\int_0^1\\int_0^1\\int_0^1\\int_0^1 x^{y^{z}} \\sin(x^{y}+z^{w}) dx dy dz dw}.",
    },
  },
];
