// The server's API: JSON, and streams of server-sent events.

const STORED = "mindgen.key";

/** `code` is OpenAI's, or "network" or "cut" where there was no answer, or no end of one. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** In the page's language where it has a text for it, else as the server says it. */
  shownIn(language) {
    const known = ["invalid_api_key", "admin_key_required", "admin_disabled", "network", "cut"];
    return known.includes(this.code) ? language.text(`error_${this.code}`) : this.message;
  }
}

export class Api {
  get key() {
    return sessionStorage.getItem(STORED) ?? "";
  }

  set key(value) {
    if (value) sessionStorage.setItem(STORED, value);
    else sessionStorage.removeItem(STORED);
  }

  /** What a path answers; a body is posted. */
  async json(path, body) {
    return (await this.#answer(path, body)).json();
  }

  async text(path, body) {
    return (await this.#answer(path, body)).text();
  }

  /** The events of a stream, parsed; ends with [DONE], and raises ApiError for an event that is an error. */
  async *events(path, body, signal) {
    const answer = await this.#answer(path, body, signal);
    for await (const data of eventData(answer.body)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(answer.status, event.error.code, event.error.message);
      yield event;
    }
    throw new ApiError(0, "cut", "The stream broke off");
  }

  async #answer(path, body, signal) {
    const headers = {};
    if (!/^[\x20-\x7e]*$/.test(this.key)) throw new ApiError(401, "invalid_api_key", "A key is plain ASCII");
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const posted = body === undefined ? { method: "GET" } : { method: "POST", body: JSON.stringify(body) };
    let answer;
    try {
      answer = await fetch(path, { ...posted, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "network", String(error));
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

async function refusal(answer) {
  const fallback = `${answer.status} ${answer.statusText}`;
  try {
    const { error } = await answer.json();
    return new ApiError(answer.status, error.code, error.message ?? fallback);
  } catch {
    return new ApiError(answer.status, null, fallback);
  }
}

/** The data of each event of a stream of bytes, however it is cut. */
async function* eventData(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice("data: ".length);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "cut", String(error));
  } finally {
    reader.cancel().catch(() => {});
  }
}
