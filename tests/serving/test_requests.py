"""What a request may be, and what one is told that may not."""

import asyncio
import base64
import io
import json
import threading

import pytest
from PIL import Image
from serving_client import LIMITS, ask, serving, wait_for

from jaxtune import __version__
from jaxtune.run.saved import open_saved
from jaxtune.serving import bodies
from jaxtune.serving.served import Served
from jaxtune.serving.service import Service

JSON = {"Content-Type": "application/json"}
TWO = {"text": "the cat", "text_pair": "a dog"}


def told(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.json()["error"]


def test_health_names_the_model(client):
    found = client.get("/health").json()
    assert len(found.pop("sha256")) == 64
    assert found == {
        **{"status": "ready", "model": "tiny/model", "version": __version__},
        **{"task": "classification", "inputs": "texts or pairs", "columns": ["text"]},
    }


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"inputs": ["a"', 400, "the body is no JSON"),
        (b'{"inputs": ["\xff"]}', 400, "no JSON"),
        (b"[" * 100_000, 413, "more than 20000 bytes"),
        (b"[" * 9_000, 400, "no JSON"),
        (b'{"inputs": [1%s]}' % (b"0" * 9_000), 400, "no JSON"),
        (b'["a"]', 422, r'such as \{"inputs"'),
        (b'{"input": ["a"]}', 422, r'such as \{"inputs"'),
        (b'{"inputs": "a"}', 422, "expected a JSON object"),
        (b'{"inputs": ["a"], "topk": 3}', 422, "'topk' beside inputs. Nearest: top_k"),
        (b'{"inputs": []}', 422, "at least one"),
        (b'{"inputs": [%s"a"]}' % (b'"a",' * 40), 413, "41 inputs, but expected at most 40"),
        (b'{"inputs": ["a", 3]}', 422, "inputs row 2: found 3, but expected a text"),
        (b'{"inputs": ["a", ["a"]]}', 422, "row 2: found a list of 1"),
        (b'{"inputs": ["a", {"txt": "b"}]}', 422, "row 2: found a mapping with the names 'txt'"),
        (b'{"inputs": ["a", "\\ud83d"]}', 422, "row 2: found half of a surrogate pair"),
        (b'{"inputs": ["a", ["a", "b"]]}', 422, "row 2: found a pair of texts, but expected a si"),
        (b'{"inputs": [NaN]}', 422, "row 1: found nan"),
    ],
)
def test_a_bad_body_is_told_why(client, body, status, message):
    import re

    assert re.search(message, told(client.post("/predict", content=body, headers=JSON), status))


def test_other_refusals(client):
    assert "type 'text/plain'" in told(
        client.post("/predict", content=b"{}", headers={"Content-Type": "text/plain"}), 415
    )
    assert "application/json." in told(client.post("/predict", files={"a": b"x"}), 415)
    answer = client.get("/predict")
    told(answer, 405)
    assert answer.headers["allow"] == "POST"
    told(client.post("/health"), 405)
    told(client.get("/../etc/passwd"), 404)
    assert "top_k is '-1'" in told(ask(client, "a", params={"top_k": "-1"}), 422)
    assert "at least 1" in told(ask(client, "a", params={"top_k": "0"}), 422)


def test_likeliest_classes_alone(client):
    (all_of,) = ask(client, "the cat").json()["predictions"]
    (best,) = ask(client, "the cat", params={"top_k": 1}).json()["predictions"]
    likeliest = max(all_of["probabilities"], key=all_of["probabilities"].get)
    assert [*best["probabilities"]] == [likeliest] == [best["label"]]
    assert len(all_of["probabilities"]) == 2


def test_an_empty_text_has_a_reason_as_in_a_file(client):
    empty, full = ask(client, " ", "the cat").json()["predictions"]
    assert (empty["label"], empty["reason"]) == ("", "inputs row 1: the column 'text' is empty")
    assert full["reason"] is None
    assert full["label"]


def test_texts_come_under_names_too_and_pairs_as_lists(client):
    def predictions(*inputs):
        return ask(client, *inputs).json()["predictions"]

    assert predictions({"text": "the cat"}) == predictions("the cat")
    assert predictions(TWO) == predictions([*TWO.values()])
    assert predictions(TWO) != predictions("the cat")


def test_what_is_counted(client):
    def count(name):
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = ('jaxtune_requests_total{code="200"}', 'jaxtune_requests_total{code="422"}')
    names += ("jaxtune_rows_total", "jaxtune_request_seconds_count", "jaxtune_batch_rows_sum")
    before = [count(name) for name in names]
    ask(client, "the cat", "a dog")
    ask(client, 3)
    assert [count(name) - old for name, old in zip(names, before, strict=True)] == [1, 1, 2, 2, 2]
    assert count("jaxtune_queue_rows") == 0
    assert count("jaxtune_ready") == 1
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.fixture
def held(tiny_weights):
    """(client, event without which no batch ends, sizes of the batches)."""
    free, sizes = threading.Event(), []
    free.set()

    def change(served):
        run = served.run

        def slow(parts, filled):
            sizes.append(len(parts))
            assert free.wait(30)
            return run(parts, filled)

        served.run = slow

    limits = LIMITS._replace(max_waiting=50, seconds=1.5)
    with serving(tiny_weights("classification", "bert", 1), limits, change=change) as client:
        sizes.clear()
        free.clear()
        yield client, free, sizes
        free.set()


def test_a_full_queue_and_a_late_answer(held):
    client, free, sizes = held
    codes = []

    def one(count):
        answer = ask(client, *["the cat"] * count)
        codes.append((answer.status_code, answer.headers.get("retry-after")))

    threads = [threading.Thread(target=one, args=(1,))]
    threads[0].start()
    wait_for(lambda: sizes == [1])
    threads += [threading.Thread(target=one, args=(40,))]
    threads[1].start()
    wait_for(lambda: "jaxtune_queue_rows 40.0" in client.get("/metrics").text)
    answer = ask(client, *["the cat"] * 11)
    assert "too many inputs are waiting" in told(answer, 503)
    assert answer.headers["retry-after"] == "1"
    for thread in threads:
        thread.join()
    assert codes == [(504, None), (504, None)]
    assert "jaxtune_queue_rows 0.0" in client.get("/metrics").text  # nobody waits for them
    free.set()
    wait_for(lambda: ask(client, "a").status_code == 200)
    assert sum(sizes) == 2


def test_before_it_is_warm(tiny_weights):
    go = threading.Event()

    def change(served):
        warm_up = served.warm_up

        def late():
            assert go.wait(30)
            return warm_up()

        served.warm_up = late

    with serving(tiny_weights("classification", "bert", 1), wait=False, change=change) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        answer = ask(client, "a")
        assert "the model is starting" in told(answer, 503)
        assert answer.headers["retry-after"] == "5"
        go.set()
        wait_for(lambda: client.get("/health").status_code == 200)
        programs = client.service._served.saved.step.shapes
        assert len(programs) == len(client.service._served.grid.shapes)
        for count in range(1, 40, 6):
            assert ask(client, *["the cat is so good"] * count).status_code == 200
        assert client.service._served.saved.step.shapes == programs  # nothing is compiled later


def test_too_many_bodies_at_once_are_refused():
    room = bodies.Room(100)
    with room.held() as one:
        one.more(60)
        with room.held() as other, pytest.raises(bodies.RefusedError, match="later") as error:
            other.more(41)
        assert error.value.status == 503
    with room.held() as one:
        one.more(100)


@pytest.mark.parametrize(
    ("task", "inputs"), [("question_answering", "questions"), ("token_classification", "words")]
)
def test_health_names_the_inputs(tiny_weights, task, inputs):
    saved = open_saved(tiny_weights(task, "bert", 1), doc_stride=8)
    found = Service(Served(saved), "a", LIMITS).health()
    assert found.status_code == 503
    assert json.loads(found.body)["inputs"] == inputs


def png(width):
    stream = io.BytesIO()
    Image.new("RGB", (width, 12), (200, 10, 90)).save(stream, "png")
    return stream.getvalue()


def test_images_in_base64_and_as_files(tiny_weights, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(9))
    with serving(tiny_weights("image_classification", "vit", 1)) as client:
        text = base64.b64encode(png(20)).decode()
        found = ask(client, text, {"image": text, "file": "b"}, f"data:image/png;base64,{text}")
        one, two, three = found.json()["predictions"]
        assert (one.pop("file"), two.pop("file")) == ("inputs row 1", "b")
        assert three.pop("file") == "inputs row 3"
        assert one == two == three
        files = [("image", ("cat.png", png(20))), ("other", (str(secret), png(20)))]
        sent = client.post("/predict", files=files).json()["predictions"]
        assert [record.pop("file") for record in sent] == ["cat.png", str(secret)]
        assert sent == [one, one]
        for value in (str(secret), {"path": str(secret)}, {"image": str(secret)}):
            assert "base64" in told(ask(client, value), 422)  # no file of the server is opened
        broken = base64.b64encode(png(20)[:40]).decode()
        assert "inputs row 2: found a broken file" in told(ask(client, text, broken), 422)
        assert "no inputs" in told(
            client.post(
                "/predict",
                files=[],
                data={},
                headers={"Content-Type": "multipart/form-data; boundary=x"},
                content=b"--x--\r\n",
            ),
            422,
        )
        form = {"Content-Type": "multipart/form-data"}
        assert "form" in told(client.post("/predict", content=b"x", headers=form), 400)


def test_a_slow_body_is_not_waited_for():
    class Slow:
        def __init__(self):
            self.headers = {}

        async def stream(self):
            yield b"{"
            await asyncio.sleep(30)

    limits = bodies.Limits(100, seconds=0.05)
    with bodies.Room(100).held() as held, pytest.raises(bodies.RefusedError) as error:
        asyncio.run(bodies.read_body(Slow(), limits, held))
    assert error.value.status == 408


def test_a_model_that_cannot_be_warmed_up_is_never_ready(tiny_weights):
    def change(served):
        def broken():
            raise MemoryError("no memory")
            yield

        served.warm_up = broken

    with serving(tiny_weights("classification", "bert", 1), wait=False, change=change) as client:
        wait_for(lambda: client.service.failure is not None)  # which ends the command
        assert isinstance(client.service.failure, MemoryError)
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert "the model is failed" not in told(ask(client, "a"), 503)
