// The page's address is its whole state: ?page=rollouts&run=...&template=... Every link and every reload gives it again.

import { ask, Refusal, remember } from "./api.js";
import { el } from "./dom.js";
import { showOverview } from "./overview.js";
import { showRollouts } from "./rollouts.js";
import { showGroup } from "./group.js";
import { showCompare, showProblem } from "./more.js";
import { showEvaluations } from "./evaluations.js";

const PAGES = {
  overview: ["Overview", showOverview],
  rollouts: ["Rollouts", showRollouts],
  compare: ["Compare", showCompare],
  evaluations: ["Evaluations", showEvaluations],
  group: [null, showGroup],
  problem: [null, showProblem],
};
const LIVE_MS = 3000;
const at = (id) => document.getElementById(id);
let runs = [];
let shown = 0; // counts what was drawn, so that a late answer draws nothing
let again = null; // what draws the page anew while a run is on

export const state = () => new URLSearchParams(location.search);

/** The address of a state; `changes` to the present one, or to an empty one of the same run. */
export function address(changes, fresh = false) {
  const next = fresh ? new URLSearchParams() : state();
  if (fresh && state().has("run")) next.set("run", state().get("run"));
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== "" && each !== null && each !== undefined) next.append(name, each);
    }
  }
  return `?${next}`;
}

export function go(changes, fresh = false) {
  history.pushState(null, "", address(changes, fresh));
  return draw();
}

export function link(text, changes, fresh = true) {
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(changes, fresh);
  };
  return el("a", { href: address(changes, fresh), onclick: open }, text);
}

export const run = () => state().get("run") || runs[0]?.run || "";
/** The evaluation whose answers are shown; empty: what the run has trained on. */
export const of = () => state().get("of") ?? "";
export const allRuns = () => runs;
export const say = (text) => { at("announce").textContent = text; };

async function draw(quiet = false) {
  const mine = quiet ? shown : ++shown;
  const name = PAGES[state().get("page")] ? state().get("page") : "overview";
  if (!quiet) {
    again = null;
    at("error").textContent = "";
    document.title = `${PAGES[name][0] ?? name} · ${run() || "Chorus runs"}`;
    drawFrame(name);
  }
  try {
    const made = await PAGES[name][1](quiet);
    if (mine !== shown) return;
    if (made?.nodes) at("page").replaceChildren(...made.nodes);
    again = made?.live ?? null;
  } catch (error) {
    if (mine !== shown || error.name === "AbortError") return;
    fail(error);
  }
}

function fail(error) {
  if (!(error instanceof Refusal)) console.error(error);
  at("error").textContent = error.message;
  if (error.status === 401) {
    at("access").hidden = false;
    at("token").focus();
  }
}

function drawFrame(name) {
  at("pages").replaceChildren(...Object.entries(PAGES).filter(([, [title]]) => title).map(([page, [title]]) => {
    const made = link(title, { page });
    if (page === name) made.setAttribute("aria-current", "page");
    return made;
  }));
  const options = runs.map((each) => el("option", { value: each.run, selected: each.run === run() }, `${each.run} (${each.state})`));
  at("run").replaceChildren(...options);
  const mine = runs.find((each) => each.run === run());
  at("standing").textContent = mine ? `${mine.run}: ${mine.state}${mine.phase ? `, ${mine.phase} ${mine.detail}` : ""}` : "";
}

async function load() {
  runs = (await ask("runs")).runs;
}

async function start() {
  try {
    await load();
    at("access").hidden = true;
  } catch (error) {
    fail(error);
    return;
  }
  await draw();
}

async function tick() {
  if (!document.hidden && again) {
    try {
      await load();
      await again();
      const mine = runs.find((each) => each.run === run());
      if (mine) at("standing").textContent = `${mine.run}: ${mine.state}${mine.phase ? `, ${mine.phase} ${mine.detail}` : ""}`;
    } catch (error) {
      fail(error);
    }
  }
  setTimeout(tick, LIVE_MS);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const rows = [...document.querySelectorAll("[data-row]")];
  const here = rows.indexOf(document.activeElement);
  if (event.key === "j") rows[Math.min(here + 1, rows.length - 1)]?.focus();
  else if (event.key === "k") rows[Math.max(here - 1, 0)]?.focus();
  else if (event.key === "/" && at("q")) {
    event.preventDefault();
    at("q").focus();
  } else if (/^[1-4]$/.test(event.key)) go({ page: Object.keys(PAGES)[event.key - 1] }, true);
  else if (event.key === "Escape") history.back();
}

at("run").addEventListener("change", (event) => go({ run: event.target.value, page: state().get("page") }, true));
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  remember(at("token").value);
  at("error").textContent = "";
  start();
});
addEventListener("popstate", () => draw());
addEventListener("keydown", keys);
start();
setTimeout(tick, LIVE_MS);
