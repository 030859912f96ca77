"""What benchmarks/throughput.py makes of its raw results: rates, shares and a table."""

import re
import statistics
from typing import Any

COLUMNS = (
    *("", "examples/s", "tokens/s", "share of peak", "padding", "first step, cold", "warm"),
    *("memory", "shapes", "x trainer"),
)
# Dense rates in operations a second, of the data sheets of the SXM versions.
CARDS = {
    "H100": {"bfloat16": 989e12, "float32": 494e12},  # float32 products are TF32
    "H200": {"bfloat16": 989e12, "float32": 494e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12},
    "L4": {"bfloat16": 121e12, "float32": 60e12},
    "T4": {"bfloat16": 65e12, "float32": 8.1e12},
}


def rates(result: dict[str, Any], peaks: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds of a peer."""
    if not result["rounds"]:
        return {}
    own = next(p for p in peaks if (p["framework"], p["dtype"]) ==
               (result["framework"], result["dtype"]))  # fmt: skip
    words = set(re.split(r"[\s-]+", own["device"]))
    card = next((CARDS[c] for c in CARDS if c in words and "PCIe" not in words), None)
    peak = own["rate"] if card is None else card[result["dtype"]]
    seconds = statistics.median(answer["seconds"] for answer in result["rounds"])
    tokens = sum(answer["tokens"] for answer in result["rounds"])
    computed = sum(answer["computed_tokens"] for answer in result["rounds"])
    return {
        "examples_per_second": result["rounds"][0]["examples"] / seconds,
        "tokens_per_second": result["rounds"][0]["tokens"] / seconds,
        "share_of_peak": result["model_flops"] / seconds / peak,
        "padding": 1.0 - tokens / computed,
    }


def print_table(title: str, results: list[dict[str, Any]]) -> None:
    """Markdown."""
    print(f"\n{title}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    base = next((r["rounds"] for r in results if r["peer"] == "trainer"), [])
    for result in results:
        print(f"| {' | '.join(cells(result, base))} |", flush=True)


def cells(result: dict[str, Any], base: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""
    if "error" in result or not result["rounds"]:
        return [
            result["peer"],
            f"failed: {result.get('error', 'no rounds')}",
            *[""] * (len(COLUMNS) - 2),
        ]
    last = result["rounds"][-1]
    memory = last.get("device_bytes") or result["peak_bytes"]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(result["rounds"], base, strict=False)]
    starts = [result.get(start) for start in ("cold", "warm")]
    return [
        result["peer"],
        f"{result['examples_per_second']:,.1f}",
        f"{result['tokens_per_second']:,.0f}",
        f"{result['share_of_peak']:.1%}",
        f"{result['padding']:.1%}",
        *("" if seconds is None else f"{seconds:.1f} s" for seconds in starts),
        "unknown" if memory is None else f"{memory / 1e6:,.0f} MB",
        str(last.get("shapes", result["ready"]["shapes"])),
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        if ratios
        else "",
    ]
