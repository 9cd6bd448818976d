// Curves of one run or of several, with marks of what happened; live while it trains.

import { allRuns, go, link, run, state } from "./app.js";
import { ask, save } from "./api.js";
import { el, facts, number, share, table } from "./dom.js";
import { color, draw, markColor, zoomable } from "./plot.js";

const PARTED = { accuracy: ["by_template", "by_level"], format: ["by_template"], reward: ["by_template"], entropy: ["by_template"] };

export async function showOverview() {
  const names = [run(), ...state().getAll("with").filter((name) => name !== run())];
  const found = await Promise.all(names.map((name) => ask("overview", { run: name })));
  const plots = [];
  const [mine] = found;
  const standing = el("div", {});
  const nodes = [standing, choices(names), el("div", { class: "cards" }, cards(found, plots)), el("div", {})];
  const lines = el("pre", { hidden: true, "aria-label": "Who waits for whom, accounts, members" });
  const look = async () => {
    if (found[0].state !== "running") return;
    lines.textContent = (await ask("live", { run: names[0] }).catch((error) => ({ lines: [error.message] }))).lines.join("\n");
    lines.hidden = !lines.textContent;
  };
  look();
  const refresh = () => {
    standing.replaceChildren(head(found[0]), lines);
    nodes[3].replaceChildren(...below(found[0]));
    plots.forEach((plot) => plot());
  };
  queueMicrotask(() => requestAnimationFrame(refresh));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot()));
  const live = mine.state === "finished" ? null : async () => {
    for (const [k, name] of names.entries()) {
      const since = found[k].records.at(-1)?.step ?? 0;
      const news = await ask("overview", { run: name, since });
      if (news.last.step < since) return void (await go({})); // it went back to a checkpoint
      found[k] = { ...news, records: [...found[k].records, ...news.records] };
    }
    look();
    refresh();
  };
  return { nodes, live };
}

function head(one) {
  const last = one.last;
  return el("section", { class: "card", "aria-label": "How it stands" },
    el("h2", {}, `Step ${last.step ?? 0} of ${one.steps ?? "?"}`),
    facts([
      ["State", `${one.state}${one.phase ? `: ${one.phase} ${one.detail}` : ""}`],
      ["Who waits", one.waits],
      ["Reward", number(last.reward)], ["Accuracy", share(last.accuracy)], ["Format", number(last.format)],
      ["Staleness", last.staleness_mean === undefined ? null : `${number(last.staleness_mean)} (most ${last.staleness_max})`],
      ["Tokens/s", number(last.tokens_per_second)],
      ["Accounts", accounts(one.summary)],
      ["Folder", one.path],
    ]),
    el("p", { class: "row" },
      link("Read the answers", { page: "rollouts", run: one.run }),
      link("Those of the newest step", { page: "rollouts", run: one.run, step: String(last.step ?? "") }),
      link("That fail the format", { page: "rollouts", run: one.run, format: ":0.999" }),
      link("Without an answer", { page: "rollouts", run: one.run, verdict: "no_answer" }),
      link("Sampled with old weights", { page: "rollouts", run: one.run, staleness: "1:", sort: "-staleness" })));
}

function accounts(summary) {
  const told = summary?.accounts ?? summary?.ledger;
  return told ? Object.entries(told).filter(([, n]) => typeof n === "number").map(([name, n]) => `${name} ${n}`).join(", ") : null;
}

function choices(names) {
  const others = allRuns().filter((each) => each.run !== run());
  const boxes = others.map((each) => el("label", {},
    el("input", { type: "checkbox", checked: names.includes(each.run), onchange: (event) => {
      const kept = names.slice(1).filter((name) => name !== each.run);
      go({ with: event.target.checked ? [...kept, each.run] : kept });
    } }), each.run));
  const parts = [["", "whole run"], ["by_template", "by template"], ["by_level", "by level"]].map(([value, text]) =>
    el("label", {}, el("input", { type: "radio", name: "by", checked: (state().get("by") ?? "") === value, onchange: () => go({ by: value }) }), text));
  return el("div", {},
    others.length ? el("fieldset", { class: "choice" }, el("legend", {}, "Overlay"), boxes, el("label", {},
      el("input", { type: "checkbox", checked: state().has("band"), onchange: (event) => go({ band: event.target.checked ? "1" : "" }) }),
      "one line and a band for runs that differ in their seed alone")) : null,
    el("fieldset", { class: "choice" }, el("legend", {}, "Lines"), parts),
    state().has("from") ? el("button", { type: "button", onclick: () => go({ from: "", to: "" }) }, `All steps (now ${state().get("from")} to ${state().get("to")})`) : null);
}

function cards(found, plots) {
  return Object.entries(found[0].titles).map(([name, title]) => {
    const canvas = el("canvas", { role: "img", tabindex: "0", "data-curve": name });
    const legend = el("div", { class: "legend-line" });
    let scale = null;
    const plot = () => {
      const lines = linesOf(found, name);
      const from = state().get("from"), to = state().get("to");
      scale = draw(canvas, { lines, marks: found[0].marks, range: from && to ? [Number(from), Number(to)] : null });
      const said = lines.map((line) => `${line.name}: last ${number(line.points.at(-1)?.[1])}`).join("; ");
      canvas.setAttribute("aria-label", `${title}. ${said || "nothing yet"}`);
      canvas.title = said;
      legend.replaceChildren(...(lines.length > 1 ? lines.map((line, k) => {
        const sign = el("i");
        sign.style.background = color(line.color ?? k);
        return el("span", {}, sign, `${line.name} ${number(line.points.at(-1)?.[1])}`);
      }) : [el("span", {}, `last ${number(lines[0]?.points.at(-1)?.[1])}`)]));
    };
    plots.push(plot);
    zoomable(canvas, () => scale, (range) => go(range ? { from: range[0], to: range[1] } : { from: "", to: "" }));
    const png = el("button", { type: "button", onclick: () => canvas.toBlob((blob) => save(blob, `${name}.png`)) }, "PNG");
    return el("section", { class: "card" }, el("h3", {}, title, png), canvas, legend);
  });
}

function linesOf(found, name) {
  const by = state().get("by");
  if (by && PARTED[name]?.includes(by)) {
    const [one] = found;
    const parts = [...new Set(one.records.flatMap((record) => Object.keys(record[by] ?? {})))].sort();
    return parts.map((part) => ({
      name: part,
      points: one.records.map((record) => [record.step, record[by]?.[part]?.[name]]).filter(([, y]) => y !== null && y !== undefined),
    }));
  }
  const lines = found.map((one) => ({
    name: one.run,
    recipe: one.recipe,
    points: one.records.filter((record) => record[name] !== null && record[name] !== undefined).map((record) => [record.step, record[name]]),
  })).filter((line) => line.points.length);
  return state().has("band") ? banded(lines) : lines;
}

/** One line a recipe: the mean over its runs, and from the least to the largest of them. */
function banded(lines) {
  const recipes = Map.groupBy(lines, (line) => line.recipe);
  return [...recipes].map(([recipe, same]) => {
    const steps = Map.groupBy(same.flatMap((line) => line.points), ([step]) => step);
    const rows = [...steps].sort(([a], [b]) => a - b).map(([step, points]) => [step, points.map(([, y]) => y)]);
    return {
      name: same.length > 1 ? `${recipe} (${same.length} runs)` : same[0].name,
      points: rows.map(([step, ys]) => [step, ys.reduce((a, b) => a + b) / ys.length]),
      band: rows.map(([step, ys]) => [step, Math.min(...ys), Math.max(...ys)]),
    };
  });
}

function below(one) {
  const templates = Object.entries(one.by_template).map(([name, values]) => ({ name, ...values }));
  const marks = one.marks.slice(-200).toReversed();
  return [
    templates.length ? el("section", { class: "card" }, el("h2", {}, "Templates at the newest step"), table([
      ["Template", (row) => link(row.name, { page: "rollouts", run: one.run, template: row.name })],
      ["Samples", (row) => number(row.samples), "number"], ["Reward", (row) => number(row.reward), "number"],
      ["Accuracy", (row) => share(row.accuracy), "number"], ["Format", (row) => number(row.format), "number"],
      ["Length", (row) => number(row.response_tokens_mean), "number"], ["Cut off", (row) => share(row.truncated), "number"],
    ], templates, "Templates at the newest step")) : null,
    marks.length ? el("section", { class: "card" }, el("h2", {}, "What happened"), el("ul", { class: "timeline" }, marks.map((mark) => {
      const sign = el("i", { "aria-hidden": "true" }, "■ ");
      sign.style.color = markColor(mark.kind);
      return el("li", {}, sign, link(`step ${mark.step}`, { page: "rollouts", run: one.run, step: String(mark.step) }), ` ${mark.kind}: ${mark.text}`);
    }))) : null,
  ].filter(Boolean);
}

