// What is asked before something is decided? A dialog names what it is about, and hears no key or click that came
// before it could have been read.

import { h, section } from "./dom.js";

export const READING_TIME = 250;

// Resolves with what `fields` say, or with null for no.
export function ask({ question, about = [], warning, body = [], yes = "Yes", tone = "", read = () => ({}), wide }) {
  return new Promise((done) => {
    const opened = performance.now();
    const hint = h("p", { class: "tone-alarm", role: "alert" });
    const confirmed = h("input", { type: "checkbox", id: "confirmed" });
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "question" }, question),
      about.map((line) => h("p", { class: "about" }, line)),
      warning ? h("p", { class: "tone-alarm" }, h("label", null, confirmed, ` ${warning}`)) : null,
      body,
      hint,
      h(
        "p",
        { class: "buttons" },
        h("button", { type: "submit", class: `yes ${tone}` }, yes),
        h("button", { type: "button", class: "no", onclick: () => close(null) }, "Cancel (Esc)"),
      ),
    );
    const dialog = h("dialog", { "aria-labelledby": "question", class: wide ? "wide" : null }, form);
    const close = (answer) => {
      dialog.close();
      dialog.remove();
      done(answer);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (performance.now() < opened + READING_TIME) return;
      if (warning && !confirmed.checked) {
        hint.textContent = "Tick the box, or read it first.";
        return;
      }
      const answer = read();
      if (typeof answer === "string") hint.textContent = answer;
      else close(answer);
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "y" && event.timeStamp > opened + READING_TIME) form.requestSubmit();
      if (event.key === "n") close(null);
    });
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      close(null);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("textarea, input:not([type=checkbox]):not([type=radio]):not(:disabled)") ?? form.querySelector(".yes")).focus();
  });
}

// A line of text, with the last ones to choose from.
export function line(label, recent = []) {
  const input = h("input", { type: "text", list: "recent", autocomplete: "off", maxlength: "4000" });
  const element = h(
    "label",
    { class: "line" },
    label,
    input,
    h("datalist", { id: "recent" }, recent.map((text) => h("option", { value: text }))),
  );
  return { element, value: () => input.value.trim() };
}

// How far an approval reaches; nothing to see where there is no choice.
export function choice(scopes, chosen) {
  const words = h("input", { type: "text", "aria-label": "The first words of the commands", maxlength: "300", disabled: true });
  const inputs = scopes.map((scope, at) =>
    h("input", { type: "radio", name: "scope", value: String(at), checked: at === Math.min(chosen, scopes.length - 1) }),
  );
  const element =
    scopes.length > 1
      ? h(
          "fieldset",
          null,
          h("legend", null, "Allow"),
          inputs.map((input, at) => h("label", null, input, ` ${scopes[at].words}`, typed(scopes[at]) ? words : null)),
        )
      : null;
  const selected = () => scopes[Math.max(0, inputs.findIndex((input) => input.checked))];
  element?.addEventListener("change", (event) => {
    if (event.target === words) return;
    words.disabled = !typed(selected());
    if (!words.disabled) words.focus();
  });
  const value = () => (typed(selected()) ? `${selected().grant} ${words.value.trim().split(/\s+/).join(" ")}` : selected().grant);
  return { element, value };
}

// For this scope, the operator types the words with which a command begins.
const typed = (scope) => Boolean(scope.grant?.startsWith("prefix:"));

export async function look(title, sections) {
  await ask({ question: title, body: h("div", { class: "detail" }, sections.map(section)), yes: "Close", wide: true });
}
