// The page of the HTTP interface: openapi.json as tables, and each request to try. No other host is asked.

import { Refusal, ask } from "./api.js";
import { element } from "./view.js";

const EXAMPLES = {
  "/v1/grade": { completion: "3 + 4 is \\boxed{7}", gold: "7" },
  "/v1/explain": { completion: "3 + 4 is \\boxed{7}", gold: "7", template: "qwen-math" },
  "/v1/grade/batch": { items: [{ completion: "\\boxed{7}", gold: "7" }, { completion: "\\boxed{8}", gold: "7" }] },
  "/v1/cluster": { completions: ["\\boxed{1/2}", "\\boxed{0.5}", "\\boxed{2}"] },
  "/v1/render": { template: "qwen-math", problem: "3 + 4 = ?" },
};

const at = (id) => document.getElementById(id);
const code = (text) => element("code", "", text);
let schemas = {};

/** A schema that is only a name, looked up. */
function resolved(schema) {
  return schema?.$ref ? (schemas[schema.$ref.split("/").at(-1)] ?? {}) : (schema ?? {});
}

/** A schema's type in a few words: `string`, `list of GradeRequest`, `strict | fractional`. */
function typeOf(schema) {
  if (!schema) return "anything";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return [...new Set(several.map(typeOf))].join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && schema.additionalProperties) return `map to ${typeOf(schema.additionalProperties)}`;
  return schema.type ?? "anything";
}

function fieldRow(name, schema, required) {
  const said = [schema.description ?? ""];
  if (required) said.push("Required.");
  else if (schema.default !== undefined && schema.default !== null) said.push(`Default ${JSON.stringify(schema.default)}.`);
  if (schema.maxLength) said.push(`At most ${schema.maxLength} characters.`);
  if (schema.maxItems) said.push(`At most ${schema.maxItems} items.`);
  return element("tr", "", element("td", "", code(name)), element("td", "", code(typeOf(schema))),
    element("td", "", said.filter(Boolean).join(" ")));
}

/** The fields of an object's schema, and of those that it names, each once. */
function tables(schema, told = new Set()) {
  const name = schema?.$ref?.split("/").at(-1);
  const whole = resolved(schema);
  if (!whole.properties || told.has(name)) return [];
  told.add(name);
  const required = new Set(whole.required ?? []);
  const rows = Object.entries(whole.properties).map(([field, its]) => fieldRow(field, its, required.has(field)));
  const head = element("tr", "", ...["field", "type", "meaning"].map((title) => element("th", "", title)));
  const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
  const parts = [element("h4", "", name ?? "Fields")];
  if (whole.description) parts.push(element("p", "hint", whole.description));
  const inner = Object.values(whole.properties).flatMap(referred).flatMap((ref) => tables(ref, told));
  return [...parts, table, ...inner];
}

function referred(schema) {
  if (schema.$ref) return [schema];
  return [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.items ? [schema.items] : [])].flatMap(referred);
}

function content(message) {
  return message?.content?.["application/json"]?.schema;
}

/** A field for the body, and what the server says to it. */
function trial(path, method) {
  const body = element("textarea", "");
  const reply = element("pre", "");
  const send = element("button", "primary", "Send");
  reply.tabIndex = 0;
  reply.setAttribute("aria-live", "polite");
  body.rows = 5;
  body.spellcheck = false;
  body.setAttribute("aria-label", `Body of ${path}`);
  body.value = JSON.stringify(EXAMPLES[path] ?? {}, null, 2);
  send.type = "button";
  send.addEventListener("click", async () => {
    try {
      const sent = method === "post" ? JSON.parse(body.value) : undefined;
      reply.textContent = JSON.stringify(await ask(path.slice(1), sent, at("token").value.trim()), null, 2);
    } catch (error) {
      if (!(error instanceof Refusal) && !(error instanceof SyntaxError)) console.error(error);
      reply.textContent = error instanceof SyntaxError ? `The body is not JSON: ${error.message}` : error.message;
    }
  });
  return method === "post" ? [body, send, reply] : [send, reply];
}

function operation(path, method, told) {
  const summary = element("summary", "", element("span", "method", method.toUpperCase()), code(path));
  const parts = [summary];
  if (told.description) parts.push(element("p", "", told.description));
  const asked = content(told.requestBody);
  if (asked) parts.push(element("h3", "", "Request"), ...tables(asked));
  const answered = content(told.responses?.["200"]);
  if (answered && Object.keys(answered).length) parts.push(element("h3", "", "Response"), ...tables(answered));
  parts.push(element("h3", "", "Try"), ...trial(path, method));
  const details = element("details", "", ...parts);
  details.id = `${method}${path.replaceAll("/", "-")}`;
  return element("section", "card", details);
}

async function show() {
  try {
    const api = await ask("openapi.json");
    schemas = api.components?.schemas ?? {};
    for (const [path, methods] of Object.entries(api.paths)) {
      if (path === "/metrics") continue; // no JSON: it has a link of its own above
      for (const [method, told] of Object.entries(methods)) at("interface").append(operation(path, method, told));
    }
  } catch (error) {
    at("problem").hidden = false;
    at("problem").textContent = error.message;
  }
  at("interface").removeAttribute("aria-busy");
}

show();
