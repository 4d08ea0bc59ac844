// Shows messages. A view is made once for each message and brought up to date as it grows.

import { render } from "./markdown.js";

const SVG = "http://www.w3.org/2000/svg";

export function element(tag, { text, name, label, ...rest } = {}, ...inner) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  if (label) {
    made.setAttribute("aria-label", label);
    made.title = label;
  }
  Object.assign(made, rest);
  made.append(...inner);
  return made;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

function action(name, label, onclick) {
  return element("button", { type: "button", name: "icon small", label, onclick }, icon(name));
}

export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers lend the clipboard only to safe addresses; this older way works on the others.
    const area = element("textarea", { value: text, name: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const old = [...button.childNodes];
  button.replaceChildren(button.classList.contains("icon") ? icon("check") : "Copied");
  setTimeout(() => button.replaceChildren(...old), 1500);
}

export class View {
  /** `does` holds what the buttons do: regenerate, edit, retry, each with no arguments. */
  constructor(message, does) {
    this.message = message;
    this.does = does;
    this.body = element("div", { name: "body" });
    this.after = element("div", { name: "after" });
    const who = message.role === "user" ? "You" : "Assistant";
    this.root = element("article", { name: `message ${message.role}`, ariaLabel: who });
    this.root.append(this.body, this.after);
    if (message.role === "assistant") {
      this.thoughts = element("details", { name: "thoughts", hidden: true }, element("summary", { text: "Thoughts" }));
      this.thought = element("div", { name: "thought" });
      this.thoughts.append(this.thought);
      this.root.prepend(this.thoughts);
    }
  }

  /** Brings the view up to date; `place` says whether it is the last of its role, and whether it is being written. */
  update({ last = false, writing = false } = {}) {
    const { role, content, reasoning } = this.message;
    this.root.classList.toggle("writing", writing);
    this.root.classList.toggle("empty", writing && !content);
    if (role === "user") {
      this.body.textContent = content;
    } else {
      render(this.body, content);
      this.thoughts.hidden = !reasoning;
      this.thought.textContent = reasoning ?? "";
      this.thoughts.firstChild.textContent = writing && !content ? "Thinking…" : "Thoughts";
    }
    this.after.replaceChildren(...(writing ? [] : this.footer(last)));
  }

  footer(last) {
    const { role, content, stats, note, error } = this.message;
    const parts = [];
    if (error) {
      const retry = element("button", { type: "button", name: "plain", text: "Try again", onclick: this.does.retry });
      parts.push(element("div", { name: "error", role: "alert" }, element("p", { text: error }), ...(last ? [retry] : [])));
    }
    if (note) parts.push(element("p", { name: "note", text: note }));
    const row = element("div", { name: "actions" });
    if (content) {
      const copy = action("copy", "Copy", () => copyText(content, copy));
      row.append(copy);
    }
    if (last && role === "assistant" && !error) row.append(action("again", "Answer again", this.does.regenerate));
    if (last && role === "user") row.append(action("edit", "Edit", this.does.edit));
    if (stats) row.append(element("span", { name: "stats", text: stats }));
    if (row.childNodes.length) parts.push(row);
    return parts;
  }
}
