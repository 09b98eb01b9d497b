// How is this browser told what is pending while no page is open?

import { get, post } from "./api.js";

const said = document.getElementById("said");
const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: () => "/worker.js" });
const say = (text, tone = "plain") => {
  said.textContent = text;
  said.className = `tone-${tone}`;
};
const bytes = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));

async function begin() {
  if (!("PushManager" in window)) throw new Error("This browser cannot be told; on an iPhone, add the page to the home screen first.");
  if ((await Notification.requestPermission()) !== "granted") throw new Error("The browser does not allow it; its settings for this site say so.");
  const worker = await navigator.serviceWorker.register(policy ? policy.createScriptURL("") : "/worker.js");
  await navigator.serviceWorker.ready;
  const { key } = await get("push");
  const made = await worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: bytes(key) });
  const { endpoint, keys } = made.toJSON();
  await post("push", { endpoint, ...keys });
  say("This browser is told from now on.", "good");
}

async function end() {
  const worker = await navigator.serviceWorker.getRegistration("/");
  const made = await worker?.pushManager.getSubscription();
  if (made) {
    await post("push/end", { endpoint: made.endpoint });
    await made.unsubscribe();
  }
  await worker?.unregister();
  say("This browser is not told any more.");
}

for (const [id, run] of [["begin", begin], ["end", end]]) {
  document.getElementById(id).addEventListener("click", () => run().catch((error) => say(error.message, "alarm")));
}
