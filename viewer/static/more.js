// A problem over time; two runs or steps side by side; evaluations with the answers behind each cell.

import { allRuns, go, link, run, state } from "./app.js";
import { ask } from "./api.js";
import { clip, el, facts, number, share, table, verdict } from "./dom.js";

export async function showProblem() {
  const id = state().get("id") ?? "";
  const one = await ask("problem", { run: run(), id });
  const first = one.first_right;
  const rows = one.groups;
  return { nodes: [
    el("section", { class: "card" }, el("h2", {}, `Problem ${id}`), facts([
      ["Gold", rows[0]?.gold?.join(" | ")], ["Asked", `${rows.length} times`],
      ["First right", first ? link(`step ${first.step}, under ${first.template}`, { page: "group", step: first.step, group: first.group, sample: first.sample }) : "never"],
    ]), el("pre", {}, rows[0]?.prompt ?? "")),
    el("section", { class: "card" }, el("h2", {}, "Over all passes"), table([
      ["Step", (row) => rowLink(row), "number"], ["Template", (row) => row.template],
      ["Hint", (row) => (row.hint_ratio ? share(row.hint_ratio) : "–"), "number"],
      ["Right", (row) => share(row.pass_rate), "number"], ["Reward", (row) => number(row.reward), "number"],
      ["Format", (row) => number(row.format), "number"], ["Tokens", (row) => number(row.tokens), "number"],
      ["Stale", (row) => number(row.staleness), "number"], ["First sample", (row) => clip(row.text ?? "", 600), "text"],
    ], rows, "The problem over all passes")),
  ] };
}

function rowLink(row) {
  const made = link(String(row.step), { page: "group", step: row.step, group: row.group });
  made.dataset.row = "";
  return made;
}

export async function showCompare() {
  const a = state().get("a") || run(), b = state().get("b") || run();
  const asked = { a, b, a_step: state().get("a_step") ?? "", b_step: state().get("b_step") ?? "" };
  const pick = (side, name) => el("select", { id: side, onchange: (event) => go({ [side]: event.target.value }) },
    allRuns().map((each) => el("option", { value: each.run, selected: each.run === name }, each.run)));
  const steps = (side) => el("input", { id: `${side}_step`, value: asked[`${side}_step`], placeholder: "all steps, or 1:10", onchange: (event) => go({ [`${side}_step`]: event.target.value }) });
  const form = el("section", { class: "card" }, el("h2", {}, "Compare on the problems that both have asked"),
    el("div", { class: "filters" }, ["a", "b"].flatMap((side) => [
      el("div", {}, el("label", { for: side }, side === "a" ? "First run" : "Second run"), pick(side, asked[side])),
      el("div", {}, el("label", { for: `${side}_step` }, "its steps"), steps(side)),
    ])));
  if (a === b && asked.a_step === asked.b_step) {
    return { nodes: [form, el("p", { class: "empty" }, "Choose two runs, or two ranges of steps of one, such as 1:10 and 40:50.")] };
  }
  const found = await ask("compare", asked);
  const side = (row, name, text) => link(clip(text ?? "", 240) || "(no text)", { page: "group", run: name, step: row.step, group: row.group });
  return { nodes: [form, el("section", { class: "card" },
    el("h2", {}, `${number(found.shared)} problems: ${found.gained} gained, ${found.lost} lost`),
    table([
      ["Problem", (row) => link(row.problem_id, { page: "problem", id: row.problem_id })],
      ["First", (row) => share(row.a.accuracy), "number"], ["Second", (row) => share(row.b.accuracy), "number"],
      ["Change", (row) => el("span", { class: row.gain > 0 ? "gain" : row.gain < 0 ? "loss" : "" }, `${row.gain > 0 ? "+" : ""}${share(row.gain)}`), "number"],
      ["First says", (row) => side(row.a, a, row.a.text), "text"], ["Second says", (row) => side(row.b, b, row.b.text), "text"],
    ], found.problems, "Problems by their change"))] };
}

export async function showEvaluations() {
  const found = await ask("evaluations", { run: run() });
  const heldout = ["before", "after"].filter((name) => Object.keys(found[name]).length).map((name) => ({ name, ...found[name] }));
  const nodes = [];
  if (heldout.length) nodes.push(el("section", { class: "card" }, el("h2", {}, "Held out"), table([
    ["When", (row) => row.name], ["Sampled", (row) => share(row.accuracy), "number"],
    ["Greedy", (row) => share(row.greedy), "number"], ["Format", (row) => number(row.format), "number"],
    ["Length", (row) => number(row.response_tokens_mean), "number"], ["Cut off", (row) => share(row.truncated), "number"],
  ], heldout, "Held-out problems")));
  if (found.validations.length) nodes.push(el("section", { class: "card" }, el("h2", {}, "Validation"), table([
    ["Step", (row) => number(row.step), "number"], ["Sampled", (row) => share(row.accuracy), "number"],
    ["Greedy", (row) => share(row.greedy), "number"], ["", (row) => (row.step === found.selected.step ? "selected" : "")],
  ], found.validations, "Validation")));
  for (const suite of found.suites) nodes.push(suiteCard(suite));
  const suite = state().get("suite"), benchmark = state().get("benchmark");
  if (suite && benchmark) nodes.push(await answersCard(suite, benchmark));
  return { nodes: nodes.length ? nodes : [el("p", { class: "empty" }, "No evaluation yet. chorus eval RUN --suite math writes one.")] };
}

const interval = (pair) => (Array.isArray(pair) ? ` (${share(pair[0])} to ${share(pair[1])})` : "");

function suiteCard(suite) {
  const rows = Object.entries(suite.benchmarks ?? {}).flatMap(([name, each]) => [
    { name, title: each.title ?? name, ...each },
    ...["levels", "by_level", "subjects", "by_subject"].flatMap((part) => Object.entries(each[part] ?? {}).map(([label, cell]) => ({
      name, title: `  ${label}`, ...(typeof cell === "object" ? cell : { accuracy: cell }),
    }))),
  ]);
  return el("section", { class: "card" }, el("h2", {}, suite.name), table([
    ["Benchmark", (row) => link(row.title, { page: "evaluations", suite: suite.name, benchmark: row.name })],
    ["Problems", (row) => number(row.problems), "number"],
    ["Accuracy", (row) => `${share(row.accuracy)}${interval(row.interval)}`, "number"],
    ["Format", (row) => number(row.format), "number"], ["Tokens", (row) => number(row.tokens_mean), "number"],
  ], rows, suite.name), el("p", { class: "hint" }, suite.macro ? `Mean over benchmarks ${share(suite.macro.accuracy)}${interval(suite.macro.interval)}` : ""));
}

async function answersCard(suite, benchmark) {
  const { answers } = await ask("answers", { run: run(), suite, benchmark });
  const rows = answers.flatMap((line) => line.samples.map((sample) => ({ id: line.id, ...sample })));
  return el("section", { class: "card" }, el("h2", {}, `Answers: ${benchmark}`), table([
    ["Problem", (row) => row.id], ["Verdict", (row) => verdict(row.verdict)], ["Answer read", (row) => row.extracted ?? "–"],
    ["Tokens", (row) => number(row.tokens), "number"], ["Text", (row) => clip(row.text ?? row.completion ?? "", 600), "text"],
  ], rows, `Answers to ${benchmark}`));
}
