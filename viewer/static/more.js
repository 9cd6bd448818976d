// A problem over time; two runs or steps side by side.

import { allRuns, go, link, of, run, state } from "./app.js";
import { ask } from "./api.js";
import { clip, el, facts, number, share, table } from "./dom.js";

export async function showProblem() {
  const id = state().get("id") ?? "";
  const one = await ask("problem", { run: run(), of: of(), id });
  const first = one.first_right;
  const rows = one.groups;
  return { nodes: [
    el("section", { class: "card" }, el("h2", {}, `Problem ${id}`), facts([
      ["Gold", rows[0]?.gold?.join(" | ")], ["Asked", `${rows.length} times`],
      ["First right", first ? link(`step ${first.step}, under ${first.template}`, { page: "group", of: of(), step: first.step, group: first.group, sample: first.sample }) : "never"],
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
  const made = link(String(row.step), { page: "group", of: of(), step: row.step, group: row.group });
  made.dataset.row = "";
  return made;
}

export async function showCompare() {
  const a = state().get("a") || run(), b = state().get("b") || run();
  const asked = { a, b, a_step: state().get("a_step") ?? "", b_step: state().get("b_step") ?? "", a_of: state().get("a_of") ?? "", b_of: state().get("b_of") ?? "" };
  const pick = (side, name) => el("select", { id: side, onchange: (event) => go({ [side]: event.target.value }) },
    allRuns().map((each) => el("option", { value: each.run, selected: each.run === name }, each.run)));
  const steps = (side) => el("input", { id: `${side}_step`, value: asked[`${side}_step`], placeholder: "all steps, or 1:10", onchange: (event) => go({ [`${side}_step`]: event.target.value }) });
  const form = el("section", { class: "card" }, el("h2", {}, "Compare on the problems that both have asked"),
    el("div", { class: "filters" }, ["a", "b"].flatMap((side) => [
      el("div", {}, el("label", { for: side }, side === "a" ? "First run" : "Second run"), pick(side, asked[side])),
      el("div", {}, el("label", { for: `${side}_step` }, "its steps"), steps(side)),
    ])));
  if (a === b && asked.a_step === asked.b_step && asked.a_of === asked.b_of) {
    return { nodes: [form, el("p", { class: "empty" }, "Choose two runs, or two ranges of steps of one, such as 1:10 and 40:50.")] };
  }
  const found = await ask("compare", asked);
  const side = (row, name, text, evaluation) => link(clip(text ?? "", 240) || "(no text)", { page: "group", run: name, of: evaluation, step: row.step, group: row.group });
  return { nodes: [form, el("section", { class: "card" },
    el("h2", {}, `${number(found.shared)} problems: ${found.gained} gained, ${found.lost} lost`),
    table([
      ["Problem", (row) => link(row.problem_id, { page: "problem", id: row.problem_id, of: asked.a_of })],
      ["First", (row) => share(row.a.accuracy), "number"], ["Second", (row) => share(row.b.accuracy), "number"],
      ["Change", (row) => el("span", { class: row.gain > 0 ? "gain" : row.gain < 0 ? "loss" : "" }, `${row.gain > 0 ? "+" : ""}${share(row.gain)}`), "number"],
      ["First says", (row) => side(row.a, a, row.a.text, asked.a_of), "text"], ["Second says", (row) => side(row.b, b, row.b.text, asked.b_of), "text"],
    ], found.problems, "Problems by their change"))] };
}
