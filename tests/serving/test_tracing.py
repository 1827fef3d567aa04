"""Spans of a request and its stages, below the caller's span."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .serve_fixture import serving, wait_until

TRACE, PARENT = "af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # without leading zeros
CALLER = f"00-0{TRACE}-{PARENT}-01"
# Writes each span as one line of JSON to a file.
EXPORT = """
import json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
class File(SpanExporter):
    def export(self, spans):
        with open({file!r}, "a") as out:
            for span in spans:
                status = span.attributes.get("http.response.status_code")
                ids = [span.context.trace_id, span.parent.span_id, span.context.span_id]
                out.write(json.dumps([span.name, status, *(f"{{one:x}}" for one in ids)]) + "\\n")
        return SpanExportResult.SUCCESS
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(File()))
trace.set_tracer_provider(provider)
"""


@pytest.mark.slow
def test_a_request_has_spans_below_the_callers(classifier: Path, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    file = tmp_path / "spans.jsonl"
    with serving(classifier, "--form", "onnxruntime-f32", "--trace", patch=EXPORT.format(file=str(file))) as served:
        answer = served.client.post("/predict", json={"inputs": "a"}, headers={"traceparent": CALLER})
        assert answer.status_code == 200
        served.client.post("/predict", json={}, headers={"traceparent": CALLER})
        wait_until(lambda: file.read_text().count(TRACE) == 5)  # a request's span ends after its answer
    spans = [row for row in map(json.loads, file.read_text().splitlines()) if row[2] == TRACE]
    assert [row[0] for row in spans] == ["queue", "tokenise", "model", "POST /predict", "POST /predict"]
    assert [row[1] for row in spans[3:]] == [200, 422]
    assert {row[3] for row in spans[3:]} == {PARENT}
    assert {row[3] for row in spans[:3]} == {spans[3][4]}


@pytest.mark.slow
def test_tracing_without_its_package_is_refused(classifier: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        f"from kdnas.cli import main; main(['serve', {str(classifier)!r}, '--trace', '--port', '0'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'kdnas[trace]'" in done.stderr
