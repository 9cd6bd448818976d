// Every answer of a run: filters, a breakdown, a table. The address holds all of it.

import { address, go, link, of, run, say, state } from "./app.js";
import { ask, download } from "./api.js";
import { clip, el, number, share, table, verdict } from "./dom.js";

export const FILTERS = {
  q: ["Words in the text", "wide"], step: ["Step", "", "5:50"], template: ["Template"], verdict: ["Verdict"],
  problem: ["Problem"], level: ["Level"], domain: ["Domain"], hint: ["Hint ratio", "", "0.5:"], staleness: ["Staleness", "", "1:"],
  generator: ["Generator"], length: ["Length", "", "100:"], reward: ["Reward", "", ":1"], format: ["Format", "", ":0.999"],
  truncated: ["Cut off", "", "true"], disputed: ["Second opinion differs", "", "true"], greedy: ["Greedy", "", "true"],
};
const SHORTCUTS = [
  ["All", {}],
  ["Fails the format", { format: ":0.999" }],
  ["No answer found", { verdict: "no_answer" }],
  ["Old weights", { staleness: "1:", sort: "-staleness" }],
  ["Cut off", { truncated: "true" }],
  ["Second opinion differs", { disputed: "true" }],
  ["Best", { sort: "-reward" }],
  ["Worst", { sort: "reward" }],
];
const VERDICTS = ["correct", "wrong", "no_answer", "timeout", "error"];
const PAGE = 50;
const SORTED = { Step: "step", Problem: "problem", Template: "template", Verdict: "verdict", Reward: "reward", Advantage: "advantage", Stale: "staleness", Tokens: "tokens" };
let typing = 0;

const filters = () => ({ of: of(), ...Object.fromEntries(Object.keys(FILTERS).map((name) => [name, state().getAll(name)])) });

export async function showRollouts() {
  const offset = Number(state().get("offset") ?? 0);
  const sort = state().get("sort") ?? "";
  const asked = { run: run(), ...filters(), sort, limit: PAGE, offset };
  const by = state().get("by") ?? "template";
  const load = () => Promise.all([ask("rollouts", asked), ask("breakdown", { run: run(), ...filters(), by })]);
  const results = el("div", { id: "results" });
  const fill = ([page, parts]) => {
    results.replaceChildren(...resultNodes(page, parts, by, sort, offset));
    say(`${page.total} answers`);
  };
  fill(await load());
  const live = offset === 0 ? async () => { if (!results.contains(document.activeElement)) fill(await load()); } : null;
  const field = document.getElementById("filters");
  if (field && document.activeElement.matches("#filters input, #filters select")) { // who types keeps the field
    document.getElementById("results").replaceWith(results);
    return { live };
  }
  return { nodes: [form(), results], live };
}

function form() {
  const fields = Object.entries(FILTERS).map(([name, [title, css, hint]]) => {
    const change = (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => go({ [name]: name === "q" ? event.target.value : event.target.value.split("|"), offset: "" }), 250);
    };
    const value = state().getAll(name).join("|");
    const options = name === "verdict" ? VERDICTS : null;
    const input = options
      ? el("select", { id: name, onchange: change }, [el("option", { value: "" }, "any"), ...options.map((each) => el("option", { value: each, selected: each === value }, each))])
      : el("input", { id: name, value, placeholder: hint ?? "", oninput: change, autocomplete: "off", spellcheck: "false" });
    return el("div", { class: css }, el("label", { for: name }, title), input);
  });
  const shortcuts = SHORTCUTS.map(([title, wanted]) => el("button", { type: "button", onclick: () => go({ page: "rollouts", of: of(), ...wanted }, true) }, title));
  const prevented = (event) => event.preventDefault();
  return el("form", { class: "card", id: "filters", onsubmit: prevented, "aria-label": "Filters" },
    of() ? el("h2", {}, `Answers of evaluation ${of()}`) : null,
    el("div", { class: "row", role: "group", "aria-label": "Shortcuts" }, shortcuts),
    el("div", { class: "filters" }, fields),
    el("p", { class: "hint" }, "Numbers may be ranges (5:50, 2:, :1) or several (5,50)."));
}

function resultNodes(page, parts, by, sort, offset) {
  const damaged = Object.entries(page.damaged).map(([name, why]) => el("p", { class: "notice" }, `${name} is left out: ${why}`));
  const pick = (row) => ({ ...Object.fromEntries(Object.entries(filters())), page: "rollouts", [by === "hint_ratio" ? "hint" : by]: String(row.name ?? ""), offset: "" });
  const breakdown = el("details", { class: "card", open: true }, el("summary", {}, `${page.total.toLocaleString("en")} answers, by ${by}`),
    el("div", { class: "row" }, ["template", "verdict", "level", "staleness", "generator"].map((name) =>
      el("button", { type: "button", "aria-pressed": String(name === by), onclick: () => go({ by: name }) }, name))),
    table([
      [by, (row) => link(String(row.name ?? "–"), pick(row))],
      ["Answers", (row) => number(row.samples), "number"],
      ["Fails the format", (row) => link(share(row.format_failed), { ...pick(row), format: ":0.999" }), "number"],
      ["No answer", (row) => link(share(row.no_answer), { ...pick(row), verdict: "no_answer" }), "number"],
      ["Accuracy", (row) => share(row.accuracy), "number"], ["Reward", (row) => number(row.reward), "number"],
      ["Cut off", (row) => share(row.truncated), "number"], ["Tokens", (row) => number(row.tokens), "number"],
      ["Staleness", (row) => number(row.staleness), "number"],
    ], parts.rows, `Answers by ${by}`));
  return [...damaged, breakdown, rowsTable(page.rollouts, sort), pager(page.total, offset)];
}

function rowsTable(rows, sort) {
  const heads = ["Step", "Problem", "Template", "Verdict", "Reward", "Advantage", "Stale", "Tokens", "Text"].map((title) => {
    const key = SORTED[title];
    if (!key) return el("th", { scope: "col" }, title);
    const order = sort === key ? "ascending" : sort === `-${key}` ? "descending" : "none";
    const turn = () => go({ sort: sort === `-${key}` ? key : `-${key}`, offset: "" });
    return el("th", { scope: "col", "aria-sort": order }, el("button", { type: "button", onclick: turn }, title, order === "none" ? "" : order === "ascending" ? " ↑" : " ↓"));
  });
  const body = rows.map((row) => {
    const open = link(String(row.step), { page: "group", of: of(), step: row.step, group: row.group, sample: row.sample });
    open.dataset.row = "";
    open.setAttribute("aria-label", `Step ${row.step}, group ${row.group}, sample ${row.sample}`);
    return el("tr", {},
      el("td", { class: "number" }, open),
      el("td", {}, link(row.problem_id, { page: "problem", of: of(), id: row.problem_id })),
      el("td", {}, row.template, row.hint_ratio ? ` (hint ${number(row.hint_ratio)})` : ""),
      el("td", {}, verdict(row.verdict)),
      el("td", { class: "number", title: `accuracy ${number(row.accuracy)}, format ${number(row.format)}` }, number(row.reward)),
      el("td", { class: "number" }, number(row.advantage)),
      el("td", { class: "number" }, number(row.staleness)),
      el("td", { class: "number" }, number(row.tokens), row.truncated ? " ✂" : ""),
      el("td", { class: "text" }, clip(row.text ?? "(no text stored)", 400)));
  });
  return el("section", { class: "card scroll", "aria-label": "Answers" },
    el("table", { id: "answers" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body)));
}

function pager(total, offset) {
  const last = Math.min(offset + PAGE, total);
  const asked = { run: run(), ...filters(), sort: state().get("sort") ?? "" };
  return el("p", { class: "row" },
    el("button", { type: "button", disabled: offset === 0, onclick: () => go({ offset: Math.max(0, offset - PAGE) || "" }) }, "Newer"),
    el("span", {}, total ? `${offset + 1} to ${last} of ${total.toLocaleString("en")}` : "none"),
    el("button", { type: "button", disabled: last >= total, onclick: () => go({ offset: offset + PAGE }) }, "Older"),
    el("button", { type: "button", onclick: () => download("export", { ...asked, file: "jsonl" }, "rollouts.jsonl") }, "JSONL"),
    el("button", { type: "button", onclick: () => download("export", { ...asked, file: "parquet" }, "rollouts.parquet") }, "Parquet"),
    el("a", { href: address({}) }, "Link to this"));
}
