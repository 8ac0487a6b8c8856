// Whoever is on a row stays there when the list is renewed; and where the row has left it, is led to the list.
"use strict";

let focused;
document.addEventListener("htmx:sseBeforeMessage", (event) => {
  focused = event.target.contains(document.activeElement) && document.activeElement;
});
document.addEventListener("htmx:sseMessage", (event) => {
  if (!focused || document.activeElement !== document.body) return;
  // Browsers that cannot move an element as it is take the focus from it.
  (focused.isConnected ? focused : event.target.closest("[tabindex]")).focus({ preventScroll: true });
});
