// The server's explanation on the screen. All that comes from outside becomes text nodes, never markup.

import { pieces, visible } from "./highlight.js";

const VERDICTS = {
  correct: ["✓", "Correct"],
  wrong: ["✗", "Wrong"],
  no_answer: ["∅", "No answer"],
  timeout: ["◷", "Timed out"],
  error: ["!", "Grader failed"],
};
const RUNGS = {
  minerva: "in the sentence “final answer is $…$. I hope”",
  last_box: "in the last box",
  answer_is: "after “the answer is”",
  he_answer_is: "after “he answer is”",
  final_answer_is: "after “final answer is”",
  chinese_answer_is: "after “答案是”",
  last_expression: "as the last expression that parses",
  last_number: "as the last number",
  last_line: "on the last line",
};
const COMPOSITIONS = {
  additive: (weight) => `accuracy + ${weight} × format, whether or not the answer is right`,
  format_gated: (weight) => `accuracy + ${weight} × format, the format only when the answer is right`,
  accuracy_only: () => "accuracy alone; the format is measured and not paid",
  accuracy_and_format: () => "1 for a right answer in a whole format, else 0",
  sparkle: () => "2 for a right answer in a whole format, 1 for a right one in another, -1 for a wrong one",
};
const KNOWN_PARTS = ["total", "accuracy", "format", "overlong"]; // what else there is comes from a term
const MAX_SHOWN_CHARS = 400; // of an answer or a gold in a sentence

const at = (id) => document.getElementById(id);

export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children); // strings become text nodes
  return made;
}

/** A string as code; line breaks are drawn, and said. */
export function code(text) {
  const made = element("code");
  clip(text, MAX_SHOWN_CHARS).split("\n").forEach((line, i) => {
    if (i) made.append(breakSign());
    made.append(visible(line));
  });
  return made;
}

function breakSign() {
  const sign = element("span", "break", "↵");
  sign.setAttribute("aria-hidden", "true");
  const said = element("span", "hidden", " newline ");
  return element("span", "", sign, said);
}

/** Show the reply to a case; returns the sentence for the live region. */
export function show(reply, completion, command) {
  const [sign, word] = VERDICTS[reply.verdict] ?? ["?", reply.verdict];
  at("result").dataset.verdict = reply.verdict;
  at("sign").textContent = sign;
  at("word").textContent = word;
  at("why").textContent = why(reply);
  showReward(reply);
  showScores(reply);
  showFormat(reply);
  showReading(reply, completion);
  at("steps").replaceChildren(...steps(reply));
  at("request").textContent = command;
  at("response").textContent = JSON.stringify(reply, null, 2);
  const reward = reply.reward === null ? "No reward" : `Reward ${number(reply.reward)}`;
  return `${word}. ${reward}. ${why(reply)}`;
}

function why(reply) {
  if (reply.verdict === "no_answer") return "No rung of the ladder found an answer.";
  const masked = "in training, the sample is masked.";
  if (reply.reason && reply.accuracy === null) return `${capital(reply.reason)}. This says nothing about the answer: ${masked}`;
  if (reply.reason) return reply.reward === null ? `${capital(reply.reason)}: ${masked}` : `${capital(reply.reason)}.`;
  const { comparisons } = reply;
  const last = comparisons.at(-1);
  if (!last) return "";
  const found = `Found ${clip(reply.extracted ?? "", 80)}`;
  if (reply.verdict === "wrong" && comparisons.length > 1) return `${found}; none of ${comparisons.length} golds matches.`;
  return `${found}, the gold is ${clip(last.gold, 80)}: ${last.reason}.`;
}

function showReward({ parts, composition }) {
  const { total, accuracy, overlong } = parts;
  at("accuracy").textContent = number(accuracy);
  const terms = Object.entries(parts).filter(([name]) => !KNOWN_PARTS.includes(name)).map(([, paid]) => paid ?? 0);
  const others = terms.reduce((sum, paid) => sum + paid, overlong ?? 0);
  at("paid").textContent = total === null ? "–" : number(total - accuracy - others);
  at("total").textContent = number(total);
  const added = (composition.terms ?? []).map(({ grader, weight }) => ` + ${number(weight)} × ${grader}`).join("");
  const how = COMPOSITIONS[composition.compose]?.(number(composition.format_weight)) ?? composition.compose;
  at("composition").textContent = `This server pays ${how}${added}.`;
}

/** What this server's own graders said: each score, and its parts. */
function showScores({ scores }) {
  const found = Object.entries(scores ?? {});
  at("scores-part").hidden = !found.length;
  at("scores").replaceChildren(...found.map(([name, score]) =>
    element("div", "", element("dt", "", name), element("dd", "", score === null ? "failed" : number(score)))));
}

function showFormat({ format, markers }) {
  const counts = Object.entries(markers ?? {});
  const met = counts.filter(([, n]) => n === 1).length;
  at("format").textContent = format === null ? "" : `${number(format)}`;
  at("markers").replaceChildren(...counts.map(([marker, n]) => markerItem(marker, n)));
  if (format === null) at("markers-note").textContent = "No template, so no format score.";
  else if (!counts.length) at("markers-note").textContent = "This template has no markers: its format score is always 1.";
  else at("markers-note").textContent = `${met} of ${counts.length} markers occur exactly once, which is what pays.`;
}

function markerItem(marker, n) {
  const met = n === 1;
  const sign = element("span", "tick", met ? "✓" : "✗");
  sign.setAttribute("aria-hidden", "true");
  const said = element("span", "hidden", met ? "met: " : "not met: ");
  const count = element("span", "count", n === 0 ? "missing" : n === 1 ? "once" : `${n} times`);
  return element("li", met ? "met" : "unmet", sign, said, code(marker), count);
}

function showReading({ extraction, markers }, completion) {
  const found = pieces(completion, extraction, Object.keys(markers ?? {}));
  at("reading").replaceChildren(...found.map(pieceNode));
  if (!completion) at("reading").append(element("span", "gap", "(empty)"));
  const has = (test) => found.some(test);
  const legend = [];
  if (has((p) => p.answer)) legend.push(element("mark", "answer", "answer"));
  if (has((p) => p.marker)) legend.push(element("span", "marker", "marker"));
  if (has((p) => !p.read)) legend.push(element("span", "unread", "cut, not read"));
  if (extraction && extraction.start === null && extraction.rung !== "none") {
    legend.push("The answer does not stand there literally; see below.");
  }
  at("legend").replaceChildren(...legend);
}

function pieceNode({ text, gap, read, marker, answer }) {
  if (gap) return element("span", "gap", ` … ${gap.toLocaleString("en")} characters not shown … `);
  const names = [!read && "unread", marker && "marker", answer && "answer"].filter(Boolean).join(" ");
  return names ? element(answer ? "mark" : "span", names, visible(text)) : document.createTextNode(visible(text));
}

function steps({ extraction, extracted, normalised, comparisons, verifier, ms }) {
  const took = element("li", "", `Decided by ${verifier}, in ${ms < 10 ? number(ms) : Math.round(ms)} ms.`);
  if (!extraction) return [...comparisons.map(comparisonItem), took];
  const cuts = extraction.cuts.length ? `Cut: ${extraction.cuts.join("; ")}.` : "Nothing was cut.";
  if (extraction.rung === "none" || extracted === null) {
    return [element("li", "", cuts), element("li", "", "Found: nothing."), took];
  }
  const where = RUNGS[extraction.rung] ?? extraction.rung.replaceAll("_", " ");
  return [
    element("li", "", cuts),
    element("li", "", `Found ${where}: `, code(extracted)),
    element("li", "", "Normalised: ", code(normalised)),
    ...comparisons.map(comparisonItem),
    took,
  ];
}

function comparisonItem({ gold, normalised, equal, reason, rule }) {
  const outcome = element("strong", equal ? "met" : "unmet", equal ? "equal" : "not equal");
  const as = normalised === gold ? [] : [", read as ", code(normalised)];
  return element("li", "", "Compared with ", code(gold), ...as, ": ", outcome, `; ${reason} (${rule}).`);
}

function clip(text, limit) {
  return text.length > limit ? `${text.slice(0, limit)}…` : text;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function number(value) {
  return value === null ? "–" : String(Number(value.toFixed(4)));
}
