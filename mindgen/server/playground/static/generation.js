// One answer as it streams: its text, its tokens with their probabilities, and its times.

const NUM_ALTERNATIVES = 5;
const LEAST_MILLISECONDS = 10; // below which tokens came together, and say nothing of the speed

/** `tokens` have `offset`, where they begin in the text, in code points; times are in milliseconds. */
export class Answer {
  text = "";
  tokens = [];
  finish = null;
  hasStopText = false;
  digest = null;
  numTokens = null;
  firstAfter = null;
  lastAfter = null;

  /** Tokens per second after the first one; null where that is not known. */
  get speed() {
    const count = (this.numTokens ?? this.tokens.length) - 1;
    const milliseconds = this.lastAfter - this.firstAfter;
    return count > 0 && milliseconds >= LEAST_MILLISECONDS ? (1000 * count) / milliseconds : null;
  }
}

/** What is asked of one model, of a text or of a conversation. */
export function bodyOf(model, state, messages) {
  const shared = { model, stream: true, stream_options: { include_usage: true }, ...state.sampling };
  if (state.mode === "plain") return { ...shared, prompt: state.prompt, logprobs: NUM_ALTERNATIVES };
  return { ...shared, messages, logprobs: true, top_logprobs: NUM_ALTERNATIVES };
}

/** Fills the answer, and calls `onChange` at each event. */
export async function generate(api, body, answer, onChange, signal) {
  const isChat = "messages" in body;
  const positions = new ChatPositions();
  const started = performance.now();
  const path = isChat ? "v1/chat/completions" : "v1/completions";
  for await (const event of api.events(path, body, signal)) {
    const [choice] = event.choices;
    answer.digest ??= event.adapter_digest ?? null;
    if (event.usage) answer.numTokens = event.usage.completion_tokens;
    if (choice) {
      const text = (isChat ? choice.delta.content : choice.text) ?? "";
      const tokens = isChat ? chatTokens(choice.logprobs, positions) : plainTokens(choice.logprobs);
      if (text || tokens.length) {
        answer.lastAfter = performance.now() - started;
        answer.firstAfter ??= answer.lastAfter;
      }
      answer.text += text;
      answer.tokens.push(...tokens);
      answer.finish = choice.finish_reason ?? answer.finish;
      answer.hasStopText ||= typeof choice.stop_reason === "string";
    }
    onChange();
  }
  if (isChat) positions.settle(answer);
}

function plainTokens(logprobs) {
  return (logprobs?.tokens ?? []).map((text, place) => ({
    text,
    logprob: logprobs.token_logprobs[place],
    offset: logprobs.text_offset[place],
    alternatives: Object.entries(logprobs.top_logprobs[place] ?? {})
      .map(([other, logprob]) => ({ text: other, logprob }))
      .sort((a, b) => b.logprob - a.logprob),
  }));
}

function chatTokens(logprobs, positions) {
  return (logprobs?.content ?? []).map((each) => ({
    text: each.token,
    logprob: each.logprob,
    offset: positions.next(each.bytes ?? []),
    alternatives: each.top_logprobs.map(({ token, logprob }) => ({ text: token, logprob })),
  }));
}

/** Where a chat's tokens begin: their bytes say it, for a token may be a part of a character. */
class ChatPositions {
  #decoder = new TextDecoder();
  #length = 0;
  #beginsWithSpace = false;

  next(bytes) {
    const offset = this.#length;
    const decoded = this.#decoder.decode(Uint8Array.from(bytes), { stream: true });
    if (offset === 0 && decoded.startsWith(" ")) this.#beginsWithSpace = true;
    this.#length += Array.from(decoded).length;
    return offset;
  }

  /** Some tokenizers drop the space of an answer's first token. */
  settle(answer) {
    if (!this.#beginsWithSpace || answer.text.startsWith(" ")) return;
    for (const token of answer.tokens) token.offset = Math.max(0, token.offset - 1);
  }
}

/** The text in the pieces that its tokens make; several tokens of one character are one piece. */
export function piecesOf(answer) {
  const letters = Array.from(answer.text);
  const pieces = [];
  let waiting = [];
  answer.tokens.forEach((token, place) => {
    const end = Math.min(answer.tokens[place + 1]?.offset ?? letters.length, letters.length);
    waiting.push(token);
    if (end > token.offset) {
      pieces.push({ text: letters.slice(token.offset, end).join(""), tokens: waiting, isEnd: false });
      waiting = [];
    }
  });
  if (!answer.tokens.length && answer.text) pieces.push({ text: answer.text, tokens: [], isEnd: false });
  const endsItself = answer.finish === "stop" && !answer.hasStopText && waiting.length === 1;
  if (endsItself) pieces.push({ text: "", tokens: waiting, isEnd: true });
  return pieces;
}
