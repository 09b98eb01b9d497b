// What may agents do again, does everything work, and how do such pages list things?

import { get, post } from "./api.js";
import { ask } from "./dialog.js";
import { ago, h, said, time } from "./dom.js";

export const table = (heads, lines) =>
  h(
    "div",
    { class: "scrolls", tabindex: "0" },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, lines),
    ),
  );
export const cells = (...each) => each.map((cell) => h("td", null, cell));
export const none = (text) => h("p", { class: "tone-quiet" }, text);

export async function grants(again) {
  const { grants: found } = await get("grants");
  const revoke = async (grant) => {
    const sure = await ask({
      question: "Revoke this grant? The next such request asks again.",
      about: [`bottle ${grant.bottle_slug}, tool ${grant.tool}`, grant.fingerprint],
      yes: "Revoke",
      tone: "bad",
    });
    if (!sure) return;
    await post(`grants/${grant.id}/revoke`);
    again();
  };
  const lines = found.map((each) =>
    h("tr", null, cells(
      each.bottle_slug,
      each.tool,
      said(each.reach),
      h("span", null, time(each.created_at), ` by ${each.created_by}`),
      each.last_used_at ? time(each.last_used_at) : "never",
      h("code", null, each.fingerprint),
      h("button", { type: "button", onclick: () => revoke(each) }, "Revoke"),
    )),
  );
  return h("div", { class: "page" }, h("h1", null, "Grants"),
    found.length
      ? table(["Bottle", "Tool", "In force", "Given", "Last used", "About", "End it"], lines)
      : none("No grant is in force."));
}

export async function status(again) {
  const checking = again === true;
  const told = await get(checking ? "status?check=true" : "status");
  const mebibytes = (told.memory / 2 ** 20).toFixed(0);
  const channels = Object.entries(told.notify.channels).map(([name, of]) => `${name} ${of.failures ? `fails: ${of.error}` : "works"}`);
  const facts = [
    ["Version", told.version],
    ["Served", `for ${ago(new Date(told.begun * 1000).toISOString())}, with ${mebibytes} MiB of memory`],
    ["Notifications", `${told.notify.running ? "are sent" : "nobody is told: 'bot-bottle notify run' is not at work"}${channels.length ? ` (${channels.join(", ")})` : ""}`],
    ["Database", `${told.database.path} (${told.database.size_bytes.toLocaleString()} bytes, SQLite ${told.database.sqlite_version})`],
    ["Schema", Object.entries(told.database.modules).map(([name, at]) => `${name} ${at.found} of ${at.supported}`).join(", ")],
    ["Keys", told.keys.map((key) => `${key.name || key.role} ${key.id.slice(0, 12)}${key.current ? "" : " (former)"}`).join(", ") || "none yet"],
  ];
  const findings = told.findings?.length
    ? told.findings.map((finding) => h("p", { class: "tone-alarm" }, finding))
    : h("p", { class: "tone-good" }, "The database is sound.");
  const page = h("div", { class: "page" },
    h("h1", null, "Status"),
    h("dl", null, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    told.failed.length ? h("h2", null, "Decided, but not in effect") : null,
    told.failed.map((row) => h("p", { class: "tone-alarm" }, `${row.tool} of ${row.bottle_slug}: ${row.ended}`)),
    told.findings ? findings : null,
    h("p", { class: "buttons" },
      h("button", { type: "button", onclick: async () => page.replaceWith(await status(true)) }, "Check the database"),
      h("button", { type: "button", onclick: () => location.assign("/phone") }, "Be told on this device"),
      h("button", { type: "button", onclick: logOut }, "Log out")));
  return page;
}

async function logOut() {
  await post("logout");
  localStorage.removeItem("page-key");
  location.replace("/login");
}
