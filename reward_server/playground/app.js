// The page's life: load a link or wait, grade on request, keep the link and the prompt up to date.

import { Refusal, ask } from "./api.js";
import { EXAMPLES } from "./examples.js";
import * as form from "./form.js";
import { code, element, show } from "./view.js";

const TOKEN_KEY = "chorus-reward-token"; // in sessionStorage: it ends with the tab
const MAX_COMMAND_CHARS = 4000;

const at = (id) => document.getElementById(id);
let templates = null; // name to template, once the server has told
let grading = null; // the AbortController of the grade in progress
let lastFragment = null; // the link that this page wrote itself

async function loadTemplates() {
  const reply = await ask("v1/templates", undefined, token());
  form.offer(await ask("v1/graders", undefined, token()));
  templates = new Map(reply.templates.map((template) => [template.name, template]));
  const chosen = at("template").value;
  const groups = Map.groupBy ? Map.groupBy(reply.templates, (t) => t.category) : byCategory(reply.templates);
  const none = new Option("none", "");
  at("template").replaceChildren(none, ...[...groups].map(([category, members]) => optionGroup(category, members)));
  form.write({ ...form.read(), template: chosen });
  showPrefill();
}

function byCategory(list) {
  const groups = new Map();
  for (const template of list) groups.set(template.category, [...(groups.get(template.category) ?? []), template]);
  return groups;
}

function optionGroup(category, members) {
  const group = document.createElement("optgroup");
  group.label = category;
  group.append(...members.map(({ name }) => new Option(name, name)));
  return group;
}

async function grade() {
  grading?.abort();
  const mine = (grading = new AbortController());
  const state = form.read();
  at("error").textContent = "";
  at("verdict").setAttribute("aria-busy", "true");
  try {
    const body = form.request(state);
    if (templates === null) await loadTemplates();
    const reply = await ask("v1/explain", body, token(), mine.signal);
    at("empty").hidden = true;
    at("result").hidden = false;
    at("stale").hidden = true;
    at("announce").textContent = show(reply, state.completion, command(body));
    keepLink(state);
    if (at("prompt-box").open) showPrompt();
  } catch (error) {
    if (error.name !== "AbortError") refuse(error);
  } finally {
    if (grading === mine) at("verdict").removeAttribute("aria-busy");
  }
}

/** Say what went wrong; a verdict that stands there is no longer this case's. */
function refuse(error) {
  if (!(error instanceof Refusal) && !(error instanceof SyntaxError)) console.error(error);
  const message = error instanceof SyntaxError ? `The tests or the row are not JSON: ${error.message}` : error.message;
  at("announce").textContent = "";
  at("error").textContent = message;
  at("result").hidden = true;
  at("empty").hidden = true;
  if (error.status === 401) {
    at("access").hidden = false;
    at("token").focus();
  }
}

function token() {
  return at("token").value.trim();
}

/** The same grade from a terminal. The token is named, never shown. */
function command(body) {
  const json = JSON.stringify(body);
  if (json.length > MAX_COMMAND_CHARS) return "Too long for a command line: send the body from a file, with -d @FILE.";
  const url = new URL("v1/explain", location.href.split("#")[0]);
  const access = token() ? " -H \"Authorization: Bearer $CHORUS_REWARD_TOKEN\"" : "";
  return `curl -s ${url} -H 'Content-Type: application/json'${access} \\\n  -d '${json.replaceAll("'", "'\\''")}'`;
}

/** The address bar follows the graded case, so that it can be copied or reloaded. */
function keepLink(state) {
  lastFragment = form.toFragment(state);
  history.replaceState(null, "", lastFragment === null ? location.pathname : `#${lastFragment}`);
  return lastFragment !== null;
}

async function share() {
  if (!keepLink(form.read())) {
    at("share-link").hidden = true;
    at("share-note").textContent = "This case is too long for a link. Share it as a request instead.";
    return;
  }
  at("share-link").value = location.href;
  try {
    await navigator.clipboard.writeText(location.href);
    at("share-link").hidden = true;
    at("share-note").textContent = "Copied.";
  } catch { // no clipboard without a secure context or a permission
    at("share-link").hidden = false;
    at("share-link").select();
    at("share-note").textContent = "Press Ctrl+C to copy the link.";
  }
}

/** Take the case from the address bar, and grade it when it can be graded. */
async function openLink() {
  const fragment = location.hash.slice(1);
  if (fragment === lastFragment) return;
  const state = form.fromFragment(fragment);
  if (state === null) return;
  form.write(state);
  changed();
  if (state.gold || state.tests) await grade();
}

async function showPrompt() {
  const { template, problem } = form.read();
  at("prompt").hidden = !template;
  at("prompt-note").textContent = template ? "" : "Pick a template.";
  if (!template) return;
  try {
    const { prompt, prefill } = await ask("v1/render", { template, problem }, token());
    const head = prompt.slice(0, prompt.length - prefill.length);
    at("prompt").replaceChildren(head, prefill ? element("mark", "marker", prefill) : "");
    if (prefill) at("prompt-note").textContent = "The marked end is the prefill: the completion starts after it.";
  } catch (error) {
    at("prompt").hidden = true;
    at("prompt-note").textContent = error.message;
  }
}

function showPrefill() {
  const { template, completion } = form.read();
  const prefill = templates?.get(template)?.prefill;
  const hint = at("prefill-hint");
  hint.replaceChildren("What the model wrote after the prompt.");
  if (!prefill) return;
  const twice = completion.startsWith(prefill);
  hint.append(" The prompt ends with ", code(prefill), twice ? ", and this text repeats it." : ", which is not repeated here.");
}

function changed() {
  at("stale").hidden = at("result").hidden;
  at("share-note").textContent = "";
  at("share-link").hidden = true;
  form.refresh();
  showPrefill();
}

function remember(value) {
  try {
    sessionStorage.setItem(TOKEN_KEY, value);
  } catch {
    // storage is off: the field itself remembers until the page is left
  }
}

function recall() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  } catch {
    return "";
  }
}

function exampleItem({ label, fields }) {
  const button = element("button", "", label);
  button.type = "button";
  button.addEventListener("click", () => {
    form.write(fields);
    changed();
    grade();
  });
  return element("li", "", button);
}

function listen() {
  at("examples").append(...EXAMPLES.map(exampleItem));
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    grade();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      grade();
    }
  });
  at("form").addEventListener("input", (event) => {
    if (event.target === at("token")) remember(token());
    else changed();
  });
  for (const id of ["template", "problem"]) {
    at(id).addEventListener("change", () => at("prompt-box").open && showPrompt());
  }
  at("prompt-box").addEventListener("toggle", () => at("prompt-box").open && showPrompt());
  at("share").addEventListener("click", share);
  window.addEventListener("hashchange", openLink);
}

async function start() {
  at("token").value = recall();
  at("access").hidden = !at("token").value;
  listen();
  form.refresh();
  try {
    await loadTemplates();
  } catch (error) {
    refuse(error);
  }
  await openLink();
}

start();
