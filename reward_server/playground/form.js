// The case: its fields on the page, in a link, and as a request.

const DEFAULTS = {
  problem: "", completion: "", gold: "", options: "", tests: "", row: "", template: "", kind: "math", mode: "train",
};
let graders = []; // of this server's own, once it has told
const MAX_LINK_CHARS = 32000; // what browsers, chats and issue trackers take without cutting

const MODES = {
  train: "train: the paper's ladder made tolerant, with our own rules around the comparison.",
  paper: "paper: exactly the published ladder and clean-up.",
  strict: "strict: the last box, closed, or nothing, as in evaluation.",
};

const field = (name) => document.getElementById(name);

/** The case that stands in the form. */
export function read() {
  return Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, field(name).value]));
}

/** Put a case into the form; what it does not name gets its default. */
export function write(state) {
  for (const [name, value] of Object.entries({ ...DEFAULTS, ...state })) {
    const control = field(name);
    if (control.tagName === "SELECT" && ![...control.options].some((option) => option.value === value)) {
      control.add(new Option(value, value)); // the server says what it thinks of it
    }
    control.value = value;
  }
  refresh();
}

/** Offer this server's own graders as kinds, and a row where one of them asks for columns. */
export function offer(told) {
  graders = told.graders;
  const known = new Set([...field("kind").options].map((option) => option.value));
  for (const { name } of graders) if (!known.has(name)) field("kind").add(new Option(name, name));
  refresh();
}

/** Show the fields that the kind needs, the mode's meaning, and as many gold lines as there are. */
export function refresh() {
  const { kind, mode, gold, row } = read();
  field("options-field").hidden = kind !== "choice";
  field("tests-field").hidden = kind !== "code";
  const asked = graders.filter(({ name, weight }) => name === kind || weight !== null).flatMap(({ columns }) => columns);
  field("row-field").hidden = !asked.length && !row;
  if (asked.length) field("row-hint").textContent = `A JSON object with ${[...new Set(asked)].join(", ")}.`;
  field("mode-hint").textContent = MODES[mode] ?? "";
  field("gold").rows = Math.min(6, gold.split("\n", 6).length);
}

/** The body of /v1/explain. Throws SyntaxError for tests or a row that are not JSON. */
export function request(state) {
  const golds = lines(state.gold);
  const body = { completion: state.completion };
  const own = graders.some(({ name }) => name === state.kind); // it may do without a gold
  if (golds.length || !own) body.gold = golds.length > 1 ? golds : (golds[0] ?? "");
  if (state.kind !== DEFAULTS.kind) body.kind = state.kind;
  if (state.mode !== DEFAULTS.mode) body.mode = state.mode;
  if (state.template) body.template = state.template;
  if (state.kind === "choice" && lines(state.options).length) body.options = lines(state.options);
  if (state.kind === "code" && state.tests.trim()) body.tests = JSON.parse(state.tests);
  if (state.row.trim()) body.row = JSON.parse(state.row);
  return body;
}

/** The link's fragment, without its `#`; null when the case is too long for a link. */
export function toFragment(state) {
  const length = Object.values(state).reduce((sum, value) => sum + value.length, 0);
  if (length > MAX_LINK_CHARS) return null;
  const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  const fragment = new URLSearchParams(changed).toString();
  return fragment.length > MAX_LINK_CHARS ? null : fragment;
}

/** The case of a link's fragment, or null when it holds none. */
export function fromFragment(fragment) {
  const given = [...new URLSearchParams(fragment)].filter(([name]) => Object.hasOwn(DEFAULTS, name));
  return given.length ? Object.fromEntries(given) : null;
}

function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}
