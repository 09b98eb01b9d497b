// Who else is looking at the selected proposal? The page says what it shows, and hears what the others show.

import { PAGE, post } from "./api.js";

let all = [];
let selected = null;
let said = null;
let tell = () => {};

function told() {
  const names = all.filter((each) => each.id === selected && each.viewer !== PAGE).map((each) => each.name);
  tell([...new Set(names)]);
}

function say() {
  const mine = document.hidden ? null : selected;
  if (mine === said) return;
  said = mine;
  post("looking", { page: PAGE, proposal_id: mine }).catch(() => {});
}

document.addEventListener("visibilitychange", say);

// What the host says about everybody. If the host was restarted, it does not know this page yet.
export function looks(given) {
  all = given;
  if (said && !all.some((each) => each.viewer === PAGE)) {
    said = null;
    say();
  }
  told();
}

// From now on `teller` is called with the names of the others who are looking at `id`.
export function looking(teller, id) {
  tell = teller;
  selected = id;
  told();
  say();
}
