"use strict";
const $ = (id) => document.getElementById(id);
const answers = [];
let facts = null;

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function headers() {
  const token = $("token").value.trim();
  return token ? { Authorization: "Bearer " + token } : {};
}

async function answered(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(), cache: "no-store" });
  } catch {
    throw new Error("The service cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error || "The service answered with status " + response.status + ".");
}

async function asked(path, options = {}) {
  return (await answered(path, options)).json();
}

function formOf(files, model) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name || "image");
  if (model) form.append("model", model);
  return form;
}

async function explain(made, file, label, model) {
  say("Looking for " + label + "…");
  try {
    const path = "v1/explain?label=" + encodeURIComponent(label);
    const response = await answered(path, { method: "POST", body: formOf([file], model) });
    const picture = made.querySelector("img") || element("img");
    picture.src = URL.createObjectURL(await response.blob());
    picture.alt = "Evidence for " + label + ": warm where something speaks for it, cool where against it";
    if (!picture.isConnected) made.prepend(picture);
    say("Evidence for " + label + ": warm for it, cool against it.");
  } catch (error) {
    say(error.message, true);
  }
}

async function learn(name) {
  const query = name ? "?model=" + encodeURIComponent(name) : "";
  facts = await asked("v1/model" + query);
  $("about").textContent = facts.labels.length + " labels, version " + facts.version;
  if (facts.models.length > 1 && !$("model").options.length) {
    $("model").append(...facts.models.map((one) => element("option", { value: one, textContent: one })));
    $("model-field").hidden = false;
  }
}

function row(label, probability, chosen, show) {
  const threshold = facts.thresholds[label];
  const fill = element("span", { className: "fill" });
  fill.style.width = 100 * probability + "%";
  const track = element("span", { className: "track" }, fill);
  if (threshold <= 1) {
    const limit = element("span", { className: "limit" });
    limit.style.left = "calc(" + 100 * threshold + "% - 1px)";
    track.append(limit);
  }
  const limitText = threshold <= 1 ? "threshold " + threshold.toFixed(3) : "never predicted";
  track.title = label + ": " + probability.toFixed(4) + ", " + limitText;
  track.setAttribute("role", "img");
  track.setAttribute("aria-label", track.title);
  return element("li", { className: chosen ? "yes" : "" },
    element("button", { type: "button", className: "label", textContent: label,
      title: "Show the evidence for " + label, onclick: () => show(label) }), track, element("span", { textContent: probability.toFixed(3) }));
}

function card(result, file, model) {
  const made = element("article", { className: "card" });
  const show = (label) => explain(made, file, label, model);
  const picture = element("img", { alt: "", src: URL.createObjectURL(file) });
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  picture.addEventListener("error", () => picture.remove()); // TIFF, in most browsers
  const chosen = new Set(result.labels);
  const order = Object.entries(result.probabilities).sort((a, b) => b[1] - a[1]);
  const above = order.filter(([name]) => chosen.has(name)).map(([name, p]) => row(name, p, true, show));
  const below = order.filter(([name]) => !chosen.has(name)).map(([name, p]) => row(name, p, false, show));
  const said = result.labels.length ? result.labels.join(", ") : "No label reaches its threshold.";
  made.append(picture, element("h2", { textContent: result.id }),
    element("p", { className: "said", textContent: said }), element("ul", {}, ...above),
    element("details", { open: !above.length },
      element("summary", { textContent: below.length + " other labels" }), element("ul", {}, ...below)));
  return made;
}

async function predict(files) {
  if (!files.length) return;
  say("Predicting " + files.length + (files.length === 1 ? " image…" : " images…"));
  try {
    await learn($("model").value);
    const start = performance.now();
    const body = await asked("v1/predict", { method: "POST", body: formOf(files, $("model").value) });
    body.results.forEach((result, n) => $("results").prepend(card(result, files[n], body.model)));
    answers.push(...body.results.map((result) => ({ model: body.model, version: body.version, ...result })));
    $("actions").hidden = false;
    const ms = Math.round(performance.now() - start);
    say(files.length + (files.length === 1 ? " image" : " images") + " in " + ms + " ms.");
  } catch (error) {
    say(error.message, true);
  }
  $("files").value = "";
}

async function copy() {
  const text = JSON.stringify(answers, null, 1);
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without permission, or without https
    const area = element("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    $("copy").focus();
  }
  say("Copied " + answers.length + (answers.length === 1 ? " result." : " results."));
}

$("form").addEventListener("submit", (event) => event.preventDefault());
$("files").addEventListener("change", () => predict([...$("files").files]));
$("files").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // it would submit the form in some browsers
  $("files").click();
});
$("copy").addEventListener("click", copy);
$("clear").addEventListener("click", () => {
  answers.length = 0;
  $("results").replaceChildren();
  $("actions").hidden = true;
  say("");
  $("files").focus();
});
$("model").addEventListener("change", () => learn($("model").value).catch((error) => say(error.message, true)));
$("token").addEventListener("change", () => learn().then(() => say("")).catch((error) => say(error.message, true)));
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
for (const type of ["dragleave", "drop"]) {
  document.addEventListener(type, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
}
document.addEventListener("drop", (event) => predict([...event.dataTransfer.files]));
document.addEventListener("paste", (event) => predict([...event.clipboardData.files]));
learn().then(() => { $("token-field").hidden = true; }).catch(() => {
  if (document.activeElement === document.body) $("token").focus(); // never away from where someone is
});
