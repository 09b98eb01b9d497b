// How does anything get onto the page? By h(), which inserts every text as text. Nothing here parses HTML, and the
// browser refuses any attempt to do so (Trusted Types).

export function h(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const said = (told) => h("span", { class: `tone-${told.tone}` }, told.text);

export function ago(timestamp) {
  const seconds = Math.max(0, (Date.now() - Date.parse(timestamp)) / 1000);
  for (const [limit, divisor, unit] of [[100, 1, "s"], [6000, 60, "min"], [172800, 3600, "h"]]) {
    if (seconds < limit) return `${Math.round(seconds / divisor)} ${unit}`;
  }
  return `${Math.round(seconds / 86400)} d`;
}

// In the reader's own zone; what the store says is UTC.
export const clock = (timestamp) =>
  timestamp ? new Date(timestamp).toLocaleString([], { dateStyle: "short", timeStyle: "medium" }) : "";

export const time = (timestamp, text) =>
  timestamp ? h("time", { datetime: timestamp, title: `${timestamp} (UTC)` }, text ?? clock(timestamp)) : "";

export function diffLines(text) {
  const kinds = { "+": "added", "-": "removed", "@": "place" };
  return text.split("\n").map((line) => h("span", { class: kinds[line[0]] ?? "kept" }, `${line}\n`));
}

export function section(each) {
  const text = each.text === null ? null : h("pre", { tabindex: "0" }, each.diff ? diffLines(each.text) : each.text);
  return h(
    "section",
    null,
    each.heading ? h("h3", null, each.heading) : null,
    each.remarks.map((remark) => h("p", { class: "remark" }, said(remark))),
    each.fields.length
      ? h("dl", null, each.fields.map((field) => [h("dt", null, field.name), h("dd", null, said(field))]))
      : null,
    text && (each.quoted ? h("figure", { class: "quoted" }, h("figcaption", null, "written by the agent"), text) : text),
  );
}
