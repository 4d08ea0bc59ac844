// Speaks to the server: models, and answers as they stream.

/** What the server said no with, or why it could not be reached. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

function headers(key, more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function refused(response) {
  let message = "";
  try {
    message = (await response.json()).error.message;
  } catch {
    message = `The server answered with status ${response.status}.`;
  }
  return new ApiError(message, response.status);
}

async function reach(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it running?");
  }
}

/** Returns the names of the models of text that this key may use. */
export async function models(key) {
  const response = await reach("v1/models", { headers: headers(key) });
  if (!response.ok) throw await refused(response);
  return (await response.json()).data.filter((model) => !model.hears && !model.speaks).map((model) => model.id);
}

/** Yields the chunks of a chat completion; leaving the loop or `signal` ends it on the server too. */
export async function* chat(body, key, signal) {
  const response = await reach("v1/chat/completions", {
    method: "POST",
    headers: headers(key, { "Content-Type": "application/json" }),
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await refused(response);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message);
    yield chunk;
  }
  throw new ApiError("The connection ended before the answer was complete.");
}

/** Yields the data of server-sent events, however the bytes were cut. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (held + value).split(/\r\n|\n/);
      held = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (!line && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection was lost in the middle of the answer.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
