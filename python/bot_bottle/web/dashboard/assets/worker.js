// What does the browser do while no page is open? It shows the line that was pushed, and opens the inbox when it is tapped.
// Nothing is cached or stored here: the page reads what is pending, with its own login.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  const told = event.data?.json() ?? {};
  const place = typeof told.place === "string" && /^\/(#inbox\/[0-9a-f-]+)?$/.test(told.place) ? told.place : "/";
  event.waitUntil(
    self.registration.showNotification(String(told.title ?? "bot-bottle"), {
      body: String(told.body ?? ""),
      icon: "/assets/icon.png",
      tag: place,
      data: { place },
    }),
  );
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const { place } = event.notification.data;
  event.waitUntil(
    (async () => {
      const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
      const open = pages.find((each) => new URL(each.url).pathname === "/");
      if (!open) return self.clients.openWindow(place);
      await open.focus();
      open.postMessage({ place });
    })(),
  );
});
