// Turns a model's Markdown into elements. Whatever the model writes becomes text nodes: it is never
// parsed as HTML, and links lead only to http and https.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|\*(?=[^\s*])([\s\S]*?[^\s*])\*(?!\*)|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)/;

function make(tag, content, name) {
  const element = document.createElement(tag);
  if (content !== undefined) element.textContent = content;
  if (name) element.className = name;
  return element;
}

/** Cuts a text into blocks: each fenced code whole, the rest at empty lines. */
export function blocks(text) {
  const found = [];
  let lines = [];
  let fence = null;
  const end = () => {
    if (lines.some((line) => line.trim())) found.push(lines.join("\n"));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const opening = FENCE.exec(line);
    if (fence) {
      lines.push(line);
      if (line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "")) {
        fence = null;
        end();
      }
    } else if (opening) {
      end();
      fence = opening[1];
      lines.push(line);
    } else if (!line.trim()) {
      // Items of one list may stand apart.
      if (!(lines.length && ITEM.test(lines[0]))) end();
      else lines.push(line);
    } else {
      const inList = lines.length && ITEM.test(lines[0]);
      const apart = inList && !lines.at(-1).trim() && !ITEM.test(line) && !/^\s/.test(line);
      const starts = !inList && ITEM.test(line) && lines.length;
      if (apart || starts || /^#{1,6} /.test(line) || (lines.length && /^#{1,6} /.test(lines[0]))) end();
      lines.push(line);
    }
  }
  end();
  return found;
}

/** Renders into an element; blocks that have not changed keep their elements, and a selection in them. */
export function render(into, text) {
  const wanted = blocks(text);
  wanted.forEach((source, index) => {
    const old = into.children[index];
    if (old && old.source === source) return;
    const made = block(source);
    made.source = source;
    if (old) old.replaceWith(made);
    else into.append(made);
  });
  while (into.children.length > wanted.length) into.lastElementChild.remove();
}

function block(source) {
  const lines = source.split("\n");
  const fence = FENCE.exec(lines[0]);
  if (fence) return code(lines, fence);
  const heading = /^(#{1,6}) (.*)$/.exec(lines[0]);
  if (heading) return inline(make(`h${Math.min(6, heading[1].length + 2)}`), heading[2]);
  if (lines.length === 1 && /^\s*([-*_])(\s*\1){2,}\s*$/.test(source)) return make("hr");
  if (ITEM.test(lines[0])) return list(lines);
  if (lines.every((line) => line.startsWith(">"))) {
    const quote = make("blockquote");
    render(quote, lines.map((line) => line.replace(/^> ?/, "")).join("\n"));
    return quote;
  }
  return inline(make("p"), source);
}

function code(lines, fence) {
  const last = lines.at(-1).trim();
  const closed = lines.length > 1 && last.startsWith(fence[1]) && !last.replaceAll(fence[1][0], "");
  const figure = make("figure", undefined, "code");
  const head = make("figcaption");
  const copy = make("button", "Copy", "plain copy-code");
  copy.type = "button";
  head.append(make("span", fence[2] || "code"), copy);
  const pre = make("pre");
  pre.tabIndex = 0;
  pre.append(make("code", lines.slice(1, closed ? -1 : undefined).join("\n")));
  figure.append(head, pre);
  return figure;
}

function list(lines) {
  const numbered = (mark) => /\d/.test(mark);
  const first = ITEM.exec(lines[0]);
  const root = make(numbered(first[2]) ? "ol" : "ul");
  if (numbered(first[2])) root.start = parseInt(first[2], 10);
  const open = [{ indent: first[1].length, list: root }];
  let item = null;
  let text = "";
  const end = () => item && inline(item, text.trim(), true);
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (!found) {
      text += `\n${line.trim()}`;
      continue;
    }
    end();
    const indent = found[1].length;
    while (open.length > 1 && indent < open.at(-1).indent) open.pop();
    if (item && indent > open.at(-1).indent + 1) {
      const inner = make(numbered(found[2]) ? "ol" : "ul");
      item.append(inner);
      open.push({ indent, list: inner });
    }
    item = make("li");
    text = found[3];
    open.at(-1).list.append(item);
  }
  end();
  return root;
}

function inline(into, text, first = false) {
  const nodes = [];
  let rest = text;
  for (let found = INLINE.exec(rest); found; found = INLINE.exec(rest)) {
    if (found.index) nodes.push(document.createTextNode(rest.slice(0, found.index)));
    const [whole, , span, bold, slanted, label, address] = found;
    if (span !== undefined) nodes.push(make("code", span));
    else if (bold !== undefined) nodes.push(inline(make("strong"), bold));
    else if (slanted !== undefined) nodes.push(inline(make("em"), slanted));
    else nodes.push(link(label, address));
    rest = rest.slice(found.index + whole.length);
  }
  if (rest) nodes.push(document.createTextNode(rest));
  if (first) into.prepend(...nodes);
  else into.append(...nodes);
  return into;
}

function link(label, address) {
  const anchor = make("a", label);
  anchor.href = address;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer nofollow";
  return anchor;
}
