// Sends the files chosen for a bank one by one, and shows how far it is.
"use strict";

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-import]");
  if (!form) return;
  event.preventDefault();
  const files = [...form.querySelector("input[type=file]").files];
  const progress = form.querySelector("progress"), status = form.querySelector("[role=status]");
  const button = form.querySelector("button");
  const token = JSON.parse(document.body.getAttribute("hx-headers"))["X-Seenit-Token"];
  progress.hidden = false;
  progress.max = files.length;
  button.disabled = true;
  const problems = [];
  for (const [index, file] of files.entries()) {
    const body = new FormData();
    body.append("picture", file);
    const reply = await fetch(form.action, { method: "POST", body, headers: { "X-Seenit-Token": token } });
    if (!reply.ok) problems.push(`${file.name}: ${(await reply.json().catch(() => ({}))).detail ?? reply.status}`);
    progress.value = index + 1;
    status.textContent = form.dataset.sent.replace("{count}", index + 1 - problems.length) +
      problems.map((each) => " " + form.dataset.refused.replace("{detail}", each)).join("");
  }
  button.disabled = false;
});
