"""Reports of the lake, shown in a frame that can do nothing with the session of whoever looks.

They are pages with scripts of other people's making, over data that anybody may have sent. The content is answered
with a sandbox policy: the browser gives it an origin of its own, so it reaches neither cookies nor this API, also when
its address is opened directly; and it may load nothing.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from slipway_control.access import Reader, SlipwayDep

__all__ = ["CONTENT_POLICY", "router"]

router = APIRouter(include_in_schema=False)
CONTENT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)


@router.get("/report-content/{model}/{run}/{name}")
def report_content(model: str, run: str, name: str, slipway: SlipwayDep, who: Reader) -> Response:
    """The report itself, for the frame of `/report/…`."""
    kind = "text/html" if name.endswith(".html") else "text/plain"
    headers = {"content-security-policy": CONTENT_POLICY, "referrer-policy": "no-referrer"}
    content = slipway.report(model, run, name)
    return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)
