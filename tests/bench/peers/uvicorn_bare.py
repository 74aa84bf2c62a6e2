"""The ceiling: an ASGI app that reads nothing and returns a constant of about the size of a prediction."""

BODY = (
    b'{"request_id":"0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e5f","model":"iris","model_version":"1","slot":"blue",'
    b'"prediction":"setosa","probabilities":{"setosa":1.0,"versicolor":0.0,"virginica":0.0}}'
)
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))],
}
END = {"type": "http.response.body", "body": BODY}


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send(START)
        await send(END)
