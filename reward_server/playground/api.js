// What the page asks of the server, and each way in which that can fail, in a sentence.

export class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status; // of the response; 0: there was none
  }
}

/** The JSON of an endpoint. `body` undefined: GET. Throws Refusal; AbortError when `signal` fires. */
export async function ask(path, body, token, signal) {
  if (token && !/^[\x21-\x7e]+$/.test(token)) {
    throw new Refusal("A token is made of visible ASCII characters, without spaces. Look at what was pasted.", 401);
  }
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const request = { headers, signal };
  if (body !== undefined) {
    request.method = "POST";
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body); // lone surrogates leave as \uXXXX, which the server mends
  }
  let response;
  let text;
  try {
    response = await fetch(path, request);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(`No answer from ${location.host}. Is the server still running? Start it, then grade again.`);
  }
  const content = parse(text);
  if (response.ok && content !== undefined) return content;
  throw new Refusal(sentence(response, content, Boolean(token)), response.status);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function sentence(response, content, hadToken) {
  const detail = typeof content?.detail === "string" ? content.detail : `status ${response.status}`;
  switch (response.status) {
    case 200:
      return "The server's answer is not JSON. Does something stand between this page and it?";
    case 401:
      return hadToken ? "The server refused this token." : "This server asks for its bearer token. Enter it, then grade.";
    case 413:
      return `Too large for this server: ${detail}.`;
    case 422:
      return `The server cannot grade this: ${detail}.`;
    case 429: {
      const seconds = response.headers.get("Retry-After");
      return `The server is busy: its queue is full. Try again${seconds ? ` in ${seconds} s` : " soon"}.`;
    }
    default:
      return `The server failed: ${detail}.`;
  }
}
