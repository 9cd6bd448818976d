// The completion in pieces: what was read, where the markers are, where the answer stands.

const MAX_MARKERS = 200; // a page of a hundred thousand elements would serve nobody
const KEEP_CHARS = 1500; // of a long piece, at either end

/**
 * Pieces {text, read, marker, answer} in order; {gap: n} stands for n characters that are not shown.
 * `place` is the server's extraction (offsets in code points) or null; `markers` are strings.
 */
export function pieces(text, place, markers) {
  const [start, end, readStart, readEnd] = units(text, [
    place?.start ?? 0,
    place?.end ?? 0,
    place?.read_start ?? 0,
    place?.read_end ?? Infinity,
  ]);
  const spans = occurrences(text, markers);
  const edges = new Set([0, text.length, start, end, readStart, readEnd, ...spans.flat()]);
  const sorted = [...edges].sort((a, b) => a - b);
  const found = [];
  for (let i = 0; i + 1 < sorted.length; i += 1) {
    const [from, to] = [sorted[i], sorted[i + 1]];
    const style = {
      read: readStart <= from && to <= readEnd,
      marker: spans.some(([a, b]) => a <= from && to <= b),
      answer: start <= from && to <= end,
    };
    for (const piece of shorten(text.slice(from, to))) found.push({ ...style, ...piece });
  }
  return found;
}

/** Code point offsets as offsets of a JavaScript string, in one walk. */
function units(text, points) {
  const wanted = new Map(points.map((point) => [point, text.length]));
  let point = 0;
  for (let unit = 0; unit < text.length; point += 1) {
    if (wanted.has(point)) wanted.set(point, unit);
    unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
  }
  return points.map((point) => wanted.get(point));
}

/** Every non-overlapping occurrence of each marker, as the format score counts them. */
function occurrences(text, markers) {
  const spans = [];
  for (const marker of markers) {
    let at = text.indexOf(marker);
    for (let n = 0; at >= 0 && n < MAX_MARKERS; n += 1) {
      spans.push([at, at + marker.length]);
      at = text.indexOf(marker, at + marker.length);
    }
  }
  return spans;
}

function shorten(text) {
  const hidden = text.length - 2 * KEEP_CHARS;
  if (hidden <= KEEP_CHARS) return [{ text }];
  return [{ text: text.slice(0, KEEP_CHARS) }, { gap: hidden }, { text: text.slice(-KEEP_CHARS) }];
}

/** Control characters as their pictures: one that nobody sees cannot be argued about. */
export function visible(text) {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, (c) =>
    c === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0)),
  );
}
