// Elements, and numbers as people read them. All that comes from a run becomes text nodes, never markup.

/** An element; `on...` of the attributes are listeners, true and false say whether an attribute is there. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export const share = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}%`);

export function verdict(name) {
  return el("span", { class: "verdict", "data-verdict": name }, name ?? "–");
}

/** `columns`: [title, row => cell content, class]. */
export function table(columns, rows, caption) {
  const head = el("tr", {}, columns.map(([title]) => el("th", { scope: "col" }, title)));
  const body = rows.map((row) => el("tr", {}, columns.map(([, cell, css]) => el("td", { class: css }, cell(row)))));
  const named = caption ? [el("caption", { class: "hidden" }, caption)] : [];
  return el("div", { class: "scroll" }, el("table", {}, ...named, el("thead", {}, head), el("tbody", {}, body)));
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, known.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** A long text folded, so that a table stays a table. */
export function whole(text, most = 600) {
  return text.length <= most ? text : el("details", {}, el("summary", {}, clip(text, 200)), text);
}

export function clip(text, most) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
