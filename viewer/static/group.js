// One group: the prompt as the model saw it, its samples side by side, token by token, and what today's rules say.

import { go, link, of, run, say, state } from "./app.js";
import { ask, post } from "./api.js";
import { el, facts, number, verdict } from "./dom.js";
import { dark } from "./plot.js";

const MODES = { probability: "the engine's probability", version: "weight version", entropy: "entropy", ratio: "learner over engine", none: "nothing" };
const MARKS = { special: ["special", "special token"], hint: ["given", "hint from the solution"], prefill: ["begun", "written by the prompt"] };
const MOST_TOKENS = 2000; // of a sample, until all are asked for

export async function showGroup() {
  const asked = { run: run(), of: of(), step: state().get("step"), group: state().get("group") };
  const one = await ask("group", asked);
  const chosen = Number(state().get("sample") ?? -1);
  const has = { probability: true, version: true, none: true, entropy: one.samples.some((s) => s.token_entropies), ratio: one.samples.some((s) => s.token_ratios) };
  const mode = has[state().get("color")] ? state().get("color") : "probability";
  const radios = Object.entries(MODES).filter(([name]) => has[name]).map(([name, title]) => el("label", {},
    el("input", { type: "radio", name: "color", value: name, checked: name === mode, onchange: () => go({ color: name }) }), title));
  const nodes = [
    el("section", { class: "card" }, el("h2", {}, `Group ${one.group} of ${of() ? `evaluation ${of()}, after ` : ""}step ${one.step}`), about(one)),
    el("section", { class: "card" }, el("h2", {}, "Prompt, as the model saw it"), prompt(one)),
    el("fieldset", { class: "choice" }, el("legend", {}, "Colour tokens by"), radios),
    el("div", { class: "samples" }, one.samples.map((sample) => card(one, sample, mode, chosen))),
    el("section", { class: "card" }, el("h2", {}, "Where it has been"), el("ol", { class: "timeline" }, one.timeline.map(event))),
  ];
  return { nodes };
}

function about(one) {
  return facts([
    ["Problem", link(one.problem_id, { page: "problem", id: one.problem_id, of: of() })],
    ["Template", link(one.template, { page: "rollouts", template: one.template, of: of() })],
    ["Gold", one.gold.join(" | ")], ["Kind", one.kind], ["Level", one.level], ["Domain", one.domain],
    ["Hint", one.hint_ratio ? `${Math.round(100 * one.hint_ratio)}% of the solution` : null],
    ["Generator", `${one.generator}, attempt ${one.attempt}`],
    ["Sampling", `temperature ${number(one.temperature)}, at most ${one.max_tokens} tokens`],
  ]);
}

function prompt(one) {
  const pieces = one.prompt_pieces.map(({ text, mark }) => el("span", mark ? { class: MARKS[mark][0], title: MARKS[mark][1] } : {}, text));
  const shown = Object.keys(MARKS).filter((mark) => one.prompt_pieces.some((piece) => piece.mark === mark));
  const legend = shown.map((mark) => el("span", { class: MARKS[mark][0] }, MARKS[mark][1]));
  return el("div", {}, el("p", { class: "row legend" }, legend), el("pre", { class: "tokens", tabindex: "0" }, pieces));
}

function card(one, sample, mode, chosen) {
  const judged = el("div", { "aria-live": "polite" });
  const head = el("h3", {}, `Sample ${sample.sample} `, verdict(sample.verdict), ` reward ${number(sample.reward)}`);
  const link_ = el("button", { type: "button", "data-row": true, onclick: () => judge(one, sample, judged) }, "Judge again with today's rules");
  const terms = (sample.terms ?? []).map((term) => `${term.grader} ${number(term.paid)}`).join(", ");
  const shadow = sample.shadow ? `${sample.shadow.grader}: ${sample.shadow.verdict}${sample.disputed ? ", and differs" : ""}` : null;
  return el("article", { class: sample.sample === chosen ? "card chosen" : "card", id: `sample-${sample.sample}` }, head,
    facts([
      ["Reward", `${number(sample.reward)} of accuracy ${number(sample.accuracy)}, format ${number(sample.format)}${sample.overlong ? `, length ${number(sample.overlong)}` : ""}${terms ? `, ${terms}` : ""}`],
      ["Advantage", number(sample.advantage)], ["Answer read", sample.extracted], ["Reason", sample.reason],
      ["Tokens", `${number(sample.tokens)}${sample.truncated ? ", cut off" : ""}`],
      ["Weights", versions(sample)], ["Learner's entropy", number(sample.entropy)], ["Learner / engine", number(sample.ratio)],
      ["Second opinion", shadow],
    ]),
    tokens(sample, mode), el("p", { class: "row" }, one.can_judge ? link_ : null, one.playground ? playground(one, sample) : null), judged);
}

/** The same case in the verifier's own page. */
function playground(one, sample) {
  const asked = new URLSearchParams({ completion: sample.text ?? "", gold: one.gold.join("\n"), template: one.template, kind: one.kind });
  return el("a", { href: `${one.playground}/#${asked}`, target: "_blank", rel: "noreferrer" }, "Open in the playground");
}

const versions = (sample) => `${sample.versions.map((v) => `step ${v.step} (${v.tokens} tokens)`).join(", ")}; staleness ${number(sample.staleness)}`;

function tokens(sample, mode) {
  const block = el("pre", { class: "tokens", tabindex: "0" });
  const newest = Math.max(...sample.version_steps, 0);
  const draw = (most) => {
    const spans = sample.pieces.slice(0, most).map((text, k) => {
      const made = el("span", { title: told(sample, k) }, text);
      const strength = strengthOf(sample, k, mode, newest);
      if (strength) made.style.backgroundColor = shade(strength, mode);
      return made;
    });
    const left = sample.pieces.length - most;
    block.replaceChildren(...spans, ...(left > 0 ? [el("button", { type: "button", onclick: () => draw(sample.pieces.length) }, `${left} more tokens`)] : []));
  };
  draw(MOST_TOKENS);
  return block;
}

function told(sample, k) {
  const p = Math.exp(sample.logprobs[k]);
  const more = [sample.token_entropies ? `, entropy ${number(sample.token_entropies[k])}` : "", sample.token_ratios ? `, ratio ${number(sample.token_ratios[k])}` : ""];
  return `${sample.token_ids[k]}: probability ${number(p)}, weights of step ${sample.version_steps[k]}${more.join("")}`;
}

/** 0 to 1: how strongly a token is coloured. */
function strengthOf(sample, k, mode, newest) {
  if (mode === "probability") return 1 - Math.exp(sample.logprobs[k] ?? 0);
  if (mode === "version") return Math.min(1, (newest - sample.version_steps[k] + (sample.staleness ?? 0) * 0.25) / 4);
  if (mode === "entropy") return Math.min(1, (sample.token_entropies?.[k] ?? 0) / 3);
  if (mode === "ratio") return Math.min(1, Math.abs(Math.log(sample.token_ratios?.[k] ?? 1)) / 0.5);
  return 0;
}

const HUES = { probability: 25, version: 250, entropy: 300, ratio: 150 };
const shade = (strength, mode) => `hsl(${HUES[mode]} 90% ${dark() ? 45 : 60}% / ${(0.75 * strength).toFixed(2)})`;

async function judge(one, sample, place) {
  place.replaceChildren(el("p", { class: "hint" }, "The graders are asked…"));
  try {
    const { then, now } = await post("judge", { run: run(), of: of(), step: one.step, group: one.group, sample: sample.sample });
    const same = then.verdict === now.verdict;
    const markers = Object.entries(now.markers ?? {}).map(([marker, n]) => `${marker.replaceAll("\n", "⏎")} × ${n}`).join(", ");
    place.replaceChildren(el("p", {}, "Today: ", verdict(now.verdict), same ? " as then" : ` (then ${then.verdict})`),
      facts([
        ["Reward", `${number(typeof now.reward === "object" ? now.reward?.total : now.reward)} (then ${number(then.reward)})`], ["Why", now.reason], ["Answer read", now.extracted],
        ["Read from", now.extraction ? `${now.extraction.rung.replaceAll("_", " ")}${now.extraction.cuts.length ? `; cut: ${now.extraction.cuts.join("; ")}` : ""}` : null],
        ["Markers", markers], ["Format", number(now.format)],
        ["Compared", (now.comparisons ?? []).map((each) => `${each.gold ?? ""}: ${each.equal ?? each.method ?? each.reason ?? ""}`).join("; ")],
      ]));
    say(`Today: ${now.verdict}`);
  } catch (error) {
    place.replaceChildren(el("p", { class: "notice" }, error.message));
  }
}

function event({ at, who, what }) {
  const when = at ? new Date(1000 * at).toISOString().replace("T", " ").slice(0, 23) : "time unknown";
  return el("li", {}, `${when}  ${who} ${what}`);
}
