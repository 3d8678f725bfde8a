// Draws /openapi.json: routes by tag, with parameters, bodies and answers. Text only, never markup.
"use strict";

const METHODS = ["get", "post", "put", "delete"];

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function nameOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const several = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (several) return several.map(nameOf).filter((name) => name !== "null").join(" or ");
  if (schema.type === "array") return `${nameOf(schema.items)}[]`;
  return Array.isArray(schema.type) ? schema.type.filter((type) => type !== "null").join(" or ") : (schema.type ?? "any");
}

function bodyOf(content) {
  const media = Object.values(content ?? {})[0];
  return nameOf(media?.schema);
}

function rows(caption, heads, lines) {
  if (lines.length === 0) return [];
  const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)));
  const body = lines.map((cells) => el("tr", {}, ...cells.map((text) => el("td", {}, text ?? ""))));
  return [el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body))];
}

function fieldsOf(name, schemas) {
  const schema = schemas[name.replace(/\[\]$/, "")];
  const lines = Object.entries(schema?.properties ?? {}).map(([field, of]) => [field, nameOf(of), of.description]);
  return rows(`Fields of ${name}`, ["Field", "Type", "Meaning"], lines);
}

function route(path, method, operation, schemas) {
  const parameters = (operation.parameters ?? []).map((p) => [p.name, p.in, nameOf(p.schema), p.description]);
  const answers = Object.entries(operation.responses ?? {}).map(([status, answer]) => [
    status, bodyOf(answer.content), answer.description,
  ]);
  const request = operation.requestBody;
  const requests = request ? [[bodyOf(request.content), request.description]] : [];
  const shown = bodyOf(operation.responses?.["200"]?.content);
  const title = el("summary", {},
    el("span", { class: "method" }, method.toUpperCase()),
    el("span", { class: "path" }, path),
    el("span", { class: "what" }, operation.summary ?? ""));
  const inner = el("div", { class: "inner" },
    el("p", {}, operation.description ?? ""),
    ...rows("Parameters", ["Name", "In", "Type", "Meaning"], parameters),
    ...rows("Body", ["Type", "Meaning"], requests),
    ...rows("Answers", ["Status", "Type", "Meaning"], answers),
    ...fieldsOf(shown, schemas));
  const node = el("details", {}, title, inner);
  node.dataset.text = `${method} ${path} ${operation.summary ?? ""}`.toLowerCase();
  return node;
}

function draw(api) {
  const schemas = api.components?.schemas ?? {};
  const byTag = new Map((api.tags ?? []).map((tag) => [tag.name, { tag, nodes: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const name = item[method].tags?.[0] ?? "other";
      if (!byTag.has(name)) byTag.set(name, { tag: { name }, nodes: [] });
      byTag.get(name).nodes.push(route(path, method, item[method], schemas));
    }
  }
  document.getElementById("title").textContent = `${api.info.title} API ${api.info.version}`;
  document.getElementById("about").textContent = api.info.description ?? "";
  const sections = [...byTag.values()].filter(({ nodes }) => nodes.length > 0).map(({ tag, nodes }) =>
    el("section", {}, el("h2", {}, tag.name), el("p", { class: "what" }, tag.description ?? ""), ...nodes));
  document.getElementById("routes").replaceChildren(...sections);
}

function filter(text) {
  const wanted = text.trim().toLowerCase();
  for (const node of document.querySelectorAll("details")) node.hidden = !node.dataset.text.includes(wanted);
  for (const node of document.querySelectorAll("section")) node.hidden = !node.querySelector("details:not([hidden])");
}

async function start() {
  document.getElementById("find").addEventListener("input", (event) => filter(event.target.value));
  const about = document.getElementById("about");
  try {
    const answer = await fetch("/openapi.json", { credentials: "same-origin" });
    if (answer.status === 401) {
      about.textContent = "Sign in first: run `taffrail up` and open the link it prints, then reload this page.";
    } else if (answer.ok) {
      draw(await answer.json());
    } else {
      about.textContent = `The description could not be loaded (status ${answer.status}).`;
    }
  } catch {
    about.textContent = "The server does not answer.";
  }
}

start();
