// The chat page: wires the elements to the conversation and the conversation to the server.

import { ApiError, chat, models } from "./api.js";
import { DEFAULTS, conversation, key, request, saveConversation, saveKey, saveSettings, settings } from "./state.js";
import { View, copyText } from "./view.js";

const $ = (id) => document.getElementById(id);
const log = $("log");
const prompt = $("prompt");
const scroll = $("scroll");
const views = new Map();
let running = null; // of the answer being written: its AbortController
let editing = false;
let follow = true; // whether the end of the conversation stays in sight

const does = { regenerate, edit: beginEdit, retry: regenerate };

// ---- showing

function show() {
  $("welcome").hidden = conversation.length > 0;
  const lastUser = conversation.findLast((m) => m.role === "user");
  const known = new Set(conversation);
  for (const [message, view] of views) {
    if (known.has(message)) continue;
    view.root.remove();
    views.delete(message);
  }
  for (const message of conversation) {
    if (!views.has(message)) {
      const view = new View(message, does);
      views.set(message, view);
      log.append(view.root);
    }
    const last = message === conversation.at(-1) || message === lastUser;
    views.get(message).update({ last: last && !running, writing: running !== null && message === conversation.at(-1) });
  }
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  log.setAttribute("aria-busy", String(running !== null));
  $("clear").disabled = conversation.length === 0;
  toEnd();
}

function toEnd() {
  if (follow) scroll.scrollTop = scroll.scrollHeight;
  $("latest").hidden = follow || conversation.length === 0;
}

function say(text) {
  $("status").textContent = text;
}

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight, innerHeight * 0.4)}px`;
}

// ---- answering

function number(value, digits) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function describe({ start, first, last, tokens }) {
  if (first === null) return "";
  const parts = [];
  const seconds = (last - first) / 1000;
  if (tokens > 1 && seconds > 0) parts.push(`${number((tokens - 1) / seconds, 1)} tokens/s`);
  parts.push(`first token ${number((first - start) / 1000, 2)} s`);
  if (tokens) parts.push(`${number(tokens, 0)} token${tokens === 1 ? "" : "s"}`);
  return parts.join(" · ");
}

const NOTES = { length: "It stops here: the longest answer allowed is reached.", content_filter: "The server ended it." };

async function answer() {
  const body = request();
  const message = { role: "assistant", content: "" };
  const times = { start: performance.now(), first: null, last: 0, tokens: 0 };
  conversation.push(message);
  running = new AbortController();
  follow = true;
  say("The model is answering.");
  show();
  try {
    await write(message, body, times);
    say("The answer is complete.");
  } catch (error) {
    if (error.name === "AbortError") {
      message.note = "Stopped.";
      say("Stopped.");
    } else {
      message.error = error instanceof ApiError ? error.message : `The page failed: ${error.message}`;
      message.status = error.status;
    }
  }
  message.stats = describe(times);
  running = null;
  const { status } = message;
  delete message.status;
  saveConversation();
  show();
  if (status === 401) askForKey(message.error, regenerate);
}

async function write(message, body, times) {
  let pending = false;
  const paint = () => {
    pending = false;
    if (running && conversation.at(-1) === message) views.get(message).update({ writing: true });
    toEnd();
  };
  for await (const chunk of chat(body, key(), running.signal)) {
    if (chunk.usage) times.tokens = chunk.usage.completion_tokens;
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    const { content, reasoning_content: reasoning } = choice.delta;
    if (content || reasoning) {
      times.last = performance.now();
      times.first ??= times.last;
      message.content += content ?? "";
      if (reasoning) message.reasoning = (message.reasoning ?? "") + reasoning;
    }
    if (NOTES[choice.finish_reason]) message.note = NOTES[choice.finish_reason];
    if (!pending) {
      pending = true;
      requestAnimationFrame(paint);
    }
  }
  if (!message.content && !message.note) message.note = "The model said nothing.";
}

function stop() {
  running?.abort();
}

function send() {
  const text = prompt.value.trim();
  if (!text || running) return;
  if (editing) conversation.splice(conversation.findLastIndex((m) => m.role === "user"));
  endEdit();
  conversation.push({ role: "user", content: text });
  prompt.value = "";
  fit();
  answer();
}

function regenerate() {
  if (running) return;
  endEdit();
  while (conversation.length && conversation.at(-1).role === "assistant") conversation.pop();
  if (conversation.length) answer();
  prompt.focus();
}

function beginEdit() {
  editing = true;
  $("editing").hidden = false;
  prompt.value = conversation.findLast((m) => m.role === "user").content;
  fit();
  prompt.focus();
}

function endEdit() {
  if (!editing) return;
  editing = false;
  $("editing").hidden = true;
  prompt.value = "";
  fit();
}

// ---- models and keys

async function loadModels() {
  const select = $("model");
  try {
    const names = await models(key());
    if (!names.includes(settings.model)) settings.model = names[0] ?? "";
    select.replaceChildren(...names.map((name) => new Option(name, name, false, name === settings.model)));
    select.disabled = names.length < 2;
    if (!names.length) say("This server has no models.");
  } catch (error) {
    select.replaceChildren(new Option(error.status === 401 ? "Key needed" : "No server"));
    select.disabled = true;
    if (error.status === 401) askForKey(error.message, null);
    else setTimeout(loadModels, 5000);
  }
}

function askForKey(reason, then) {
  const dialog = $("key-dialog");
  $("key-reason").textContent = reason;
  $("key").value = "";
  $("key-form").onsubmit = async () => {
    saveKey($("key").value.trim());
    await loadModels();
    if (then && !dialog.open) then();
  };
  if (!dialog.open) dialog.showModal();
}

// ---- settings

function fillSettings() {
  const form = $("settings-form").elements;
  for (const name of ["system", "temperature", "top_p", "max_tokens", "seed"]) form[name].value = settings[name];
  form.key.value = key();
  showNumbers();
}

function showNumbers() {
  for (const name of ["temperature", "top_p"]) $(`${name}-value`).textContent = number(settings[name], 2);
}

function takeSettings() {
  const form = $("settings-form").elements;
  settings.system = form.system.value;
  for (const name of ["temperature", "top_p"]) settings[name] = Number(form[name].value);
  for (const name of ["max_tokens", "seed"]) {
    const value = form[name].value;
    settings[name] = value !== "" && form[name].checkValidity() ? Number(value) : "";
  }
  saveSettings();
  showNumbers();
}

function turnTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("cupola.theme", root.dataset.theme);
  say(`${dark ? "Light" : "Dark"} theme.`);
}

// ---- events

function wire() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("input", fit);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (running) stop();
    else endEdit();
  });
  $("stop").addEventListener("click", () => {
    stop();
    prompt.focus();
  });
  $("cancel").addEventListener("click", endEdit);
  $("clear").addEventListener("click", () => {
    stop();
    endEdit();
    conversation.length = 0;
    saveConversation();
    show();
    prompt.focus();
  });
  $("theme-button").addEventListener("click", turnTheme);
  $("ideas").addEventListener("click", (event) => {
    if (event.target.tagName !== "BUTTON") return;
    prompt.value = event.target.textContent;
    send();
  });
  log.addEventListener("click", (event) => {
    const button = event.target.closest(".copy-code");
    if (button) copyText(button.closest("figure").querySelector("code").textContent, button);
  });
  scroll.addEventListener("scroll", () => {
    follow = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
    $("latest").hidden = follow || conversation.length === 0;
  });
  $("latest").addEventListener("click", () => {
    follow = true;
    toEnd();
  });
  wireDialogs();
}

function wireDialogs() {
  $("model").addEventListener("change", () => {
    settings.model = $("model").value;
    saveSettings();
  });
  $("settings-button").addEventListener("click", () => {
    fillSettings();
    $("settings-dialog").showModal();
  });
  $("settings-form").addEventListener("input", takeSettings);
  $("settings-form").elements.key.addEventListener("change", (event) => {
    saveKey(event.target.value.trim());
    loadModels();
  });
  $("settings-dialog").addEventListener("click", (event) => {
    if (event.target === event.currentTarget) event.currentTarget.close();
  });
  $("defaults").addEventListener("click", () => {
    Object.assign(settings, DEFAULTS, { model: settings.model });
    saveSettings();
    fillSettings();
  });
  $("key-cancel").addEventListener("click", () => $("key-dialog").close());
}

wire();
show();
fit();
loadModels();
if (matchMedia("(pointer: fine)").matches) prompt.focus();
