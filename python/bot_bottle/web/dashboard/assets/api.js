// How does the page talk to the host? With the cookie, which it cannot see, and its own page key.

// An id of this page, so that other pages can say who is looking at the same proposal.
export const PAGE = crypto.randomUUID?.() ?? String(Math.random()).slice(2);

const headers = () => ({ "X-Bot-Bottle-Page": localStorage.getItem("page-key") ?? "" });
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export class Problem extends Error {
  constructor(told) {
    super(told.detail);
    this.title = told.title;
    this.status = told.status;
  }
}

async function answer(response) {
  const told = await response.json();
  if (response.status === 401) location.replace("/login");
  if (!response.ok) throw new Problem(told);
  return told;
}

export const get = async (path) => answer(await fetch(`/api/v1/${path}`, { headers: headers() }));

// Sent again if no answer came; a decision that was already made then gets the same answer.
export async function post(path, body) {
  const request = {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  };
  for (let tries = 3; ; tries -= 1) {
    try {
      return await answer(await fetch(`/api/v1/${path}`, request));
    } catch (error) {
      if (error instanceof Problem || tries === 1) throw error;
      await wait(1000);
    }
  }
}

// Calls heard(event, data) for each event after the change `at`, for as long as the page is open.
export async function follow(at, heard, connected) {
  for (let pause = 250; ; pause = Math.min(pause * 2, 5000)) {
    try {
      const response = await fetch(`/api/v1/events?page=${PAGE}`, { headers: { ...headers(), "Last-Event-ID": String(at) } });
      if (!response.ok) await answer(response);
      connected(true);
      pause = 250;
      for await (const event of events(response.body)) {
        at = event.id || at;
        heard(event.event, JSON.parse(event.data));
      }
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
    }
    connected(false);
    await wait(pause);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block.split("\n").filter((line) => line[0] !== ":").map((line) => {
          const colon = line.indexOf(": ");
          return [line.slice(0, colon), line.slice(colon + 2)];
        }),
      );
      if (fields.event) yield fields;
    }
  }
}
