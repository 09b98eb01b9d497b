// How does a link become a login? Its secret is in the fragment, which only this page sees. The page removes it from
// the address bar and the history before it does anything else.

const said = document.getElementById("said");

async function logIn(link) {
  try {
    const answer = await fetch("/api/v1/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ link }),
    });
    const told = await answer.json();
    if (answer.ok) {
      localStorage.setItem("page-key", told.page_key);
      location.replace("/");
    } else {
      said.textContent = told.detail;
    }
  } catch {
    said.textContent = "The dashboard does not answer. Run bot-bottle dashboard in a terminal on the host.";
  }
}

document.getElementById("by-hand").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = document.getElementById("link");
  logIn(field.value.split("#").at(-1).trim());
  field.value = "";
});

const link = location.hash.slice(1);
if (link) {
  history.replaceState(null, "", "/login");
  await logIn(link);
}
