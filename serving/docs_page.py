"""The documentation page at /docs: made on the server from the OpenAPI schema, without external resources."""

import html
import json
from collections.abc import Sequence
from typing import Any

from kdnas.serving.model import Model

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d5dae2; padding-bottom: .3rem; }
code, pre, textarea { font: 13px/1.5 ui-monospace, monospace; background: #f3f5f8; border-radius: 4px; }
code { padding: .1rem .3rem; } pre { padding: .8rem; overflow-x: auto; }
textarea { width: 100%; box-sizing: border-box; border: 1px solid #b9c1cd; padding: .6rem; }
.method { color: #fff; background: #2f6f4f; border-radius: 4px; padding: .1rem .5rem; font-size: .8rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
button { padding: .4rem 1.2rem; margin-top: .4rem; } summary { cursor: pointer; margin-top: .6rem; }
@media (prefers-color-scheme: dark) { body { background: #14181f; color: #dde3ec; }
  code, pre, textarea { background: #1f2631; color: #dde3ec; } a { color: #8ab4f8; } }
"""

SCRIPT = """
document.getElementById("send").onclick = async () => {
  const out = document.getElementById("answer");
  out.textContent = "...";
  try {
    const body = document.getElementById("body").value;
    const answer = await fetch("predict", {method: "POST", headers: {"content-type": "application/json"}, body});
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch (error) { shown = text; }
    out.textContent = answer.status + "\\n" + shown;
  } catch (error) { out.textContent = String(error); }
};
"""


def docs_page(schema: dict[str, Any], models: Sequence[Model]) -> str:
    """A self-contained HTML page of the service.

    Args:
        schema: the OpenAPI document.
        models: the models of the service.
    """
    info = schema["info"]
    schemas = schema["components"]["schemas"]
    example = json.dumps(schemas["PredictRequest"]["examples"][0], indent=2)
    sections = [
        _operation(path, method, operation, schemas)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if not path.startswith("/models/")
    ]
    served = "".join(_described(model) for model in models)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(info["title"])}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(info["title"])} <small>{html.escape(info["version"])}</small></h1>
<p>{html.escape(info.get("summary", ""))}. OpenAPI schema: <a href="openapi.json"><code>openapi.json</code></a>.
<a href="./">Try a text.</a></p>
<table><tr><th>model</th><th>task</th><th>form</th><th>labels</th></tr>{served}</table>
<h2>Try it</h2>
<textarea id="body" rows="6">{html.escape(example)}</textarea>
<button id="send">Send to /predict</button>
<pre id="answer">The answer appears here.</pre>
<p>From a shell:</p>
<pre>{html.escape(_curl(json.loads(example)))}</pre>
{"".join(sections)}
<script>{SCRIPT}</script></body></html>"""


def _curl(body: dict[str, Any]) -> str:
    content = json.dumps(body).replace("'", "'\\''")
    return f"curl -s http://HOST:PORT/predict -H 'content-type: application/json' -d '{content}'"


def _described(model: Model) -> str:
    session = model.session
    cells = [
        f"<code>{html.escape(model.name)}</code>",
        html.escape(session.task),
        html.escape(session.form),
        " ".join(f"<code>{html.escape(label)}</code>" for label in session.labels),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(status)}</code></td><td>{html.escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    )
    parts = [
        f'<h2><span class="method">{html.escape(method.upper())}</span> <code>{html.escape(path)}</code></h2>',
        f"<p>{html.escape(operation.get('summary', ''))}</p><table>{rows}</table>",
    ]
    for title, holder in (("Request", operation.get("requestBody")), ("Answer", operation["responses"].get("200"))):
        schema = (holder or {}).get("content", {}).get("application/json", {}).get("schema")
        if schema:
            name = schema.get("$ref", "").rsplit("/", 1)[-1]
            content = html.escape(json.dumps(_resolved(schema, schemas), indent=2))
            heading = f"{title}: {html.escape(name)}" if name else title
            parts.append(f"<details><summary>{heading}</summary><pre>{content}</pre></details>")
    return "".join(parts)


def _resolved(value: Any, schemas: dict[str, Any]) -> Any:
    """A schema with its references resolved."""
    if isinstance(value, dict):
        if "$ref" in value:
            return _resolved(schemas[value["$ref"].rsplit("/", 1)[-1]], schemas)
        return {key: _resolved(item, schemas) for key, item in value.items()}
    return [_resolved(item, schemas) for item in value] if isinstance(value, list) else value
