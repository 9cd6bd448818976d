// What evaluations say, with intervals, and the answers behind each figure.

import { go, link, run, state } from "./app.js";
import { ask } from "./api.js";
import { el, number, share, table, verdict, whole } from "./dom.js";

const PAGE = 100;
const PARTS = { level: "Level", domain: "Subject", template: "Template" };

export async function showEvaluations() {
  const found = await ask("evaluations", { run: run() });
  const nodes = [];
  if (found.heldout.length) nodes.push(heldoutCard(found.heldout));
  if (found.validations.length) nodes.push(validationCard(found));
  for (const suite of found.suites) nodes.push(suiteCard(suite));
  const suite = state().get("suite"), benchmark = state().get("benchmark");
  if (suite && benchmark) nodes.unshift(await answersCard(suite, benchmark));
  return { nodes: nodes.length ? nodes : [el("p", { class: "empty" }, "No evaluation yet. chorus eval RUN --suite math writes one.")] };
}

const interval = (pair) => (Array.isArray(pair) ? ` (${share(pair[0])} to ${share(pair[1])})` : "");
const figure = (cell) => `${share(cell?.accuracy)}${interval(cell?.interval)}`;
const behind = (text, one, more = {}) => (one.answers ? link(text, { page: "rollouts", of: one.name, ...more }) : text);

function heldoutCard(heldout) {
  const keys = new Map(heldout.flatMap((one) => one.cells.map((cell) => [`${cell.by} ${cell.name}`, cell])));
  if (!keys.size) keys.set(" ", { by: "", name: "", problems: heldout[0].problems });
  const rows = [...keys].map(([key, cell]) => ({ ...cell, of: (one) => one.cells.find((each) => `${each.by} ${each.name}` === key) }));
  const columns = heldout.flatMap((one) => [["sampled", "accuracy", "false"], ["greedy", "greedy", "true"]].map(([how, whole, greedy]) => [
    `${one.name}, ${how}`,
    (row) => {
      const cell = row.of(one)?.[how] ?? (row.by ? null : { accuracy: one[whole] });
      return cell ? behind(figure(cell), one, { greedy, ...(row.by ? { [row.by]: row.name } : {}) }) : "–";
    }, "number"]));
  const more = heldout.map((one) => el("p", { class: "hint" }, `${one.name}: format ${number(one.format)}, ${number(one.response_tokens_mean)} tokens, `,
    `${share(one.truncated)} cut off, ${number(one.ungraded)} not graded`, one.answers ? "; " : "", one.answers ? behind("all answers", one) : ""));
  return el("section", { class: "card" }, el("h2", {}, "Held out, before and after"), table([
    ["Problems of", (row) => (row.by ? `${PARTS[row.by]} ${row.name}` : "all")], ["Number", (row) => number(row.problems), "number"], ...columns,
  ], rows, "Held-out problems"), more,
    heldout.filter((one) => one.answers).length === 2 ? link("Who gained, who lost", { page: "compare", a_of: "before", b_of: "after" }) : null);
}

function validationCard(found) {
  return el("section", { class: "card" }, el("h2", {}, "Validation"), table([
    ["Step", (row) => number(row.step), "number"],
    ["Sampled", (row) => behind(share(row.accuracy), row, { greedy: "false" }), "number"],
    ["Greedy", (row) => behind(share(row.greedy), row, { greedy: "true" }), "number"],
    ["Format", (row) => number(row.format), "number"], ["", (row) => (row.step === found.selected.step ? "selected" : "")],
  ], found.validations, "Validation"));
}

function suiteCard(suite) {
  const rows = Object.entries(suite.benchmarks ?? {}).flatMap(([name, each]) => [
    { ...each, name, title: each.title ?? name },
    ...["level", "subject"].flatMap((part) => Object.entries(each[`by_${part}`] ?? {}).map(([label, cell]) => (
      { ...cell, name, title: `${part} ${label}`, [part]: label, inner: true }))),
  ]);
  const open = (row, more = {}) => ({ page: "evaluations", suite: suite.name, benchmark: row.name, level: row.level, subject: row.subject, ...more });
  const means = ["macro", "micro"].filter((name) => suite[name]).map((name) => `${name} average ${figure(suite[name])}`);
  return el("section", { class: "card" }, el("h2", {}, suite.name), table([
    ["Benchmark", (row) => link(row.title, open(row))],
    ["Problems", (row) => number(row.problems), "number"],
    ["Accuracy", (row) => link(figure(row), open(row)), "number"],
    ["Format", (row) => number(row.format), "number"], ["Tokens", (row) => number(row.tokens_mean), "number"],
    ["Cut off", (row) => (row.inner ? "" : share(row.truncated)), "number"],
    ["Not graded", (row) => (row.inner ? "" : number(row.ungraded)), "number"],
  ], rows, suite.name), means.length ? el("p", { class: "hint" }, means.join("; ")) : null);
}

async function answersCard(suite, benchmark) {
  const asked = Object.fromEntries(["level", "subject", "verdict"].map((name) => [name, state().get(name) ?? ""]));
  const offset = Number(state().get("offset") ?? 0);
  const { answers, total } = await ask("answers", { run: run(), suite, benchmark, ...asked, limit: PAGE, offset });
  const chosen = Object.entries(asked).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`).join(", ");
  const pick = (row) => { const made = link(row.verdict ?? "–", { verdict: row.verdict, offset: "" }, false); made.replaceChildren(verdict(row.verdict)); return made; };
  const last = Math.min(offset + PAGE, total);
  return el("section", { class: "card" }, el("h2", {}, `Answers: ${benchmark}${chosen ? `, ${chosen}` : ""}`), table([
    ["Problem", (row) => row.id], ["Run", (row) => number(row.run), "number"], ["Level", (row) => row.level ?? "–", "number"],
    ["Subject", (row) => row.subject ?? "–"], ["Verdict", pick], ["Answer read", (row) => row.extracted ?? "–"],
    ["Tokens", (row) => number(row.tokens), "number"], ["Text", (row) => whole(row.text ?? ""), "text"],
  ], answers, `Answers to ${benchmark}`), el("p", { class: "row" },
    el("button", { type: "button", disabled: offset === 0, onclick: () => go({ offset: Math.max(0, offset - PAGE) || "" }) }, "Earlier"),
    el("span", {}, total ? `${offset + 1} to ${last} of ${total.toLocaleString("en")}` : "none"),
    el("button", { type: "button", disabled: last >= total, onclick: () => go({ offset: offset + PAGE }) }, "Later")));
}
