// What the page asks of its server. A token, where the server wants one, stays in this tab.

let token = sessionStorage.getItem("token") ?? "";

export function remember(given) {
  token = given.trim();
  sessionStorage.setItem("token", token);
}

export class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function answer(path, options = {}) {
  const headers = { ...(options.headers ?? {}), ...(/^[\x21-\x7e]+$/.test(token) ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(`No answer from ${location.host}. Is chorus view still running?`);
  }
  if (response.ok) return response;
  let detail = `status ${response.status}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch { /* the status says enough */ }
  throw new Refusal(typeof detail === "string" ? detail : `status ${response.status}`, response.status);
}

export function query(values) {
  const made = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== "" && each !== null && each !== undefined) made.append(name, each);
    }
  }
  return made.toString();
}

export async function ask(path, values = {}, signal) {
  return (await answer(`api/${path}?${query(values)}`, { signal })).json();
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await answer(`api/${path}`, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** Hand a file of the server's to the browser. */
export async function download(path, values, name) {
  save(await (await answer(`api/${path}?${query(values)}`)).blob(), name);
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
