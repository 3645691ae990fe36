"""An OpenAI-compatible server on a loopback socket that misbehaves by a script, and keeps its own books.

What a job suffers is drawn from the hash of its request, so that every run meets the same faults: `FAULTS` hit a job's first
calls and then end, `QUIRKS` belong to all its answers. The bill is kept in whole millionths, apart from zhtune's decimals.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (("429",), ("500", "503"), ("hang",), ("cut",), ("reset",), ("nothing",), ("500", "429", "cut"), (), (), ())
QUIRKS = ("", "", "", "", "twice", "total", "negative", "", "refused", "")
INPUT, OUTPUT = 3, 7                                        # price of a token in millionths


class FakeTeacher(ThreadingHTTPServer):
    """Use as a context manager; `url` is the address of its API.

    Args:
        faults: False answers every call.
        quirks: False answers properly.
        hang: seconds before a call that times out gets its answer.
        always: a fault of every call, such as "500".
        delay: seconds that every call takes.
        answer: the text for a request; without it one of its hash.
        renamed: takes max_completion_tokens alone, as OpenAI's reasoning models do.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faults=True, quirks=True, hang=1.0, always="", delay=0.0, answer=None, renamed=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.quirks, self.hang, self.always, self.delay = faults, quirks, hang, always, delay
        self.answer, self.renamed, self.renamings = answer, renamed, 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.lock = threading.Lock()
        self.calls, self.answers, self.keys = Counter(), {}, set()
        self.unseen = 0                                     # charged for answers that nobody could read
        self.files, self.batches = {}, {}

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that was killed is no news."""

    @property
    def bill(self):
        """Everything charged, in millionths."""
        return self.unseen + sum(cost for _, cost, _ in self.answers.values())

    def completion(self, request, fault=""):
        """The answer to a request, charged for."""
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        quirk = self.quirk(digest)
        prompt, completion = sum(len(m["content"]) for m in request["messages"]), 3 + int(digest[:2], 16) % 20
        text = self.answer(request) if self.answer else f"答案{digest[:16]}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        choices = [] if fault == "nothing" else [choice]
        if quirk == "twice":
            choices, completion = choices * 2, completion * 2
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion + (quirk == "total")}
        cost = prompt * INPUT + completion * OUTPUT
        with self.lock:
            id = f"chatcmpl-{len(self.answers) + 1}"
            seen = fault in ("", "nothing") and quirk != "negative"
            if seen:
                self.answers[id] = (digest, cost, fault)
            else:
                self.unseen += cost
        if quirk == "negative":
            usage["completion_tokens"] = -1
        return {"id": id if seen else "", "object": "chat.completion", "model": request["model"], "choices": choices, "usage": usage}

    def refusal(self, request):
        """OpenAI's words for a field that the model does not take; None for a request as it should be."""
        if not self.renamed or "max_tokens" not in request:
            return None
        self.renamings += 1
        return {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                          "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter"}}

    def quirk(self, digest):
        return QUIRKS[int(digest[6:8], 16) % len(QUIRKS)] if self.quirks else ""

    def next_fault(self, digest):
        """The fault of a job's next call, "" for none."""
        with self.lock:
            call = self.calls[digest]
            self.calls[digest] += 1
        faults = FAULTS[int(digest[2:6], 16) % len(FAULTS)] if self.faults else ()
        return self.always or (faults[call] if call < len(faults) else "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """No lines on stderr."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.add(self.headers["Authorization"])
        if self.path == "/v1/chat/completions":
            return self.chat(json.loads(body))
        if self.path == "/v1/files":
            content = body.split(b"\r\n\r\n", 2)            # two form fields: the purpose and the file, in either order
            lines = [line for part in content for line in part.split(b"\n") if line.startswith(b'{"custom_id"')]
            self.server.files[f"file-{len(self.server.files)}"] = lines
            return self.send(200, {"id": f"file-{len(self.server.files) - 1}", "object": "file"})
        request = json.loads(body)
        batch = {"id": f"batch-{len(self.server.batches)}", "object": "batch", "status": "in_progress", **request}
        self.server.batches[batch["id"]] = batch
        return self.send(200, batch)

    def do_GET(self):
        path = self.path.split("?")[0].removeprefix("/v1/")
        if path == "batches":
            return self.send(200, {"object": "list", "data": list(self.server.batches.values()), "has_more": False})
        if path.startswith("batches/"):
            batch = self.server.batches[path.removeprefix("batches/")]
            seen = dict(batch)
            if batch["status"] == "in_progress":            # the second look finds it done
                batch |= {"status": "completed", "output_file_id": self.output(batch)}
            return self.send(200, seen)
        lines = self.server.files[path.split("/")[1]]
        return self.send(200, b"\n".join(lines))

    def output(self, batch):
        """The output of a batch: every third line twice, the last but one missing, the last one cut the first time."""
        lines = []
        requests = self.server.files[batch["input_file_id"]]
        for number, line in enumerate(requests):
            request = json.loads(line)
            if number == len(requests) - 2 and len(requests) > 2:
                continue
            refused = self.server.refusal(request["body"])
            response = {"status_code": 400, "body": refused} if refused else {"status_code": 200, "body": self.server.completion(request["body"])}
            answer = {"custom_id": request["custom_id"], "response": response}
            encoded = json.dumps(answer, ensure_ascii=False).encode()
            lines += [encoded[:40] if number == len(requests) - 1 and len(requests) > 2 else encoded] * (1 + (number % 3 == 0))
        name = f"file-{len(self.server.files)}"
        self.server.files[name] = lines
        return name

    def chat(self, request):
        server, digest = self.server, hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        if server.delay:
            time.sleep(server.delay)
        if refused := server.refusal(request):
            return self.send(400, refused)
        fault = server.next_fault(digest)
        if server.quirk(digest) == "refused":
            return self.send(400, {"error": {"message": "this content is not allowed", "code": "content_filter"}})
        if fault in ("429", "500", "503", "401"):
            message = f"status {fault} for {self.headers['Authorization']}"        # a server that repeats the key
            return self.send(int(fault), {"error": {"message": message}}, {"Retry-After": "0.05"} if fault == "429" else {})
        if fault == "reset":
            self.close_connection = True
            return self.connection.close()
        body = json.dumps(server.completion(request, fault), ensure_ascii=False).encode()
        if fault == "hang":
            time.sleep(server.hang)
        return self.send(200, body[:len(body) // 2] if fault == "cut" else body)

    def send(self, status, body, headers=None):
        body = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
