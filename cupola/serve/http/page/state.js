// What the page remembers: the conversation and the settings in this browser, the key in this tab.

const CONVERSATION = "cupola.conversation";
const SETTINGS = "cupola.settings";
const KEY = "cupola.key";

export const DEFAULTS = Object.freeze({ model: "", system: "", temperature: 1, top_p: 1, max_tokens: "", seed: "" });

function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // The browser's space is full or forbidden: the page works on without memory.
  }
}

const isMessage = (m) => m && (m.role === "user" || m.role === "assistant") && typeof m.content === "string";
const stored = read(CONVERSATION, []);

/** Messages in order: {role, content} and, for answers, {reasoning, stats, note, error}. */
export const conversation = Array.isArray(stored) ? stored.filter(isMessage) : [];
export const settings = { ...DEFAULTS, ...read(SETTINGS, {}) };

export function saveConversation() {
  write(CONVERSATION, conversation);
}

export function saveSettings() {
  write(SETTINGS, settings);
}

export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function saveKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** Returns the body of a request for the next answer; what stands at its default is left to the server. */
export function request() {
  const messages = conversation
    .filter((message) => message.content || message.role === "user")
    .map(({ role, content }) => ({ role, content }));
  if (settings.system.trim()) messages.unshift({ role: "system", content: settings.system.trim() });
  const body = { model: settings.model, messages };
  if (settings.temperature !== DEFAULTS.temperature) body.temperature = settings.temperature;
  if (settings.top_p !== DEFAULTS.top_p) body.top_p = settings.top_p;
  if (settings.max_tokens !== "") body.max_tokens = settings.max_tokens;
  if (settings.seed !== "") body.seed = settings.seed;
  return body;
}
