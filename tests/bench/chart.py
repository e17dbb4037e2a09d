#!/usr/bin/env python3
"""chart.py [docs/benchmarks.json [docs/benchmarks.svg]]: draws gemmad and its peers as shares of the machine's limit.

The file holds `machine` (its name), `models` (MB of weights read per token, millions of weights multiplied per token
without and with the head, and the peaks that tests/bench/bench_guard.c measured around the run: GB/s read from memory,
int8 TOPS) and `results`, which peers.py adds. The limit of prefill is the multiplications; of one sequence's decoding the memory; of eight, whichever
is lower when every weight is read once for all of them.
"""
import json
import sys
from xml.sax.saxutils import escape

FIGURES = [("prefill 512", "Prefill, 512 tokens"), ("decode 1", "Decode, one sequence"), ("decode 8", "Decode, eight sequences")]
ENGINES = [("gemmad", "gemmad", "#1a6fdb"), ("ik", "ik_llama.cpp", "#c9772b"), ("mainline", "llama.cpp", "#7c8a4a")]
LEFT, TOP, WIDE, GAP, BAR = 160, 84, 230, 46, 15


def limit(model, figure):
    """Tokens per second that the machine could do at best."""
    ops = model["int8_tops"] * 1e12
    memory = model["read_gb_s"] * 1e9 / (model["mb_per_token"] * 1e6)
    if figure.startswith("prefill"):
        return ops / (2e6 * model["body_m_params"])
    batch = int(figure.split()[1])
    return min(batch * memory, ops / (2e6 * model["all_m_params"]))


def span(values, form):
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def text(x, y, words, size=12, anchor="start", weight="normal", fill="#222"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{fill}">{escape(words)}</text>')


def rect(x, y, width, height, fill):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def row_height(engines):
    return 14 + len(engines) * (BAR + 2)


def panel(data, figure, title, x, models, engines):
    row = row_height(engines)
    bottom = TOP + row * len(models)
    out = [text(x, TOP - 14, title, 13, weight="bold")]
    for percent in (0, 25, 50, 75, 100):
        at = x + WIDE * percent / 100
        out += [rect(at - 0.5, TOP, 1, bottom - TOP, "#888" if percent == 100 else "#ddd"),
                text(at, bottom + 16, f"{percent} %", 10, "middle", fill="#555")]
    for i, name in enumerate(models):
        best = limit(data["models"][name], figure)
        for j, (engine, _, colour) in enumerate(engines):
            value = data["results"][name].get(engine, {}).get(figure)
            if value is None:
                continue
            y = TOP + i * row + 8 + j * (BAR + 2)
            width = WIDE * min(value / best, 1)
            inside = width > WIDE / 2
            out += [rect(x, y, width, BAR, colour),
                    text(x + width + (-5 if inside else 5), y + 12, f"{value:,.0f}", 11, "end" if inside else "start",
                         fill="#fff" if inside else "#222")]
    return out


def chart(data):
    models = [m for m in data["models"] if m in data["results"]]
    engines = [e for e in ENGINES if any(e[0] in data["results"][m] for m in models)]
    row = row_height(engines)
    width, height = LEFT + len(FIGURES) * (WIDE + GAP), TOP + row * len(models) + 44
    peaks = [[m[key] for m in data["models"].values()] for key in ("read_gb_s", "int8_tops")]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif">', rect(0, 0, width, height, "#fff"),
           text(16, 26, "Tokens per second (numbers) as shares of what the machine can do at best (bars)", 15, weight="bold")]
    x = 16
    for _, label, colour in engines:
        out += [rect(x, 39, 11, 11, colour), text(x + 16, 49, label)]
        x += 38 + 6 * len(label)
    out.append(text(x + 8, 49, f"Gemma 3, {data['machine']}, 2 threads, in turns; 100 % = {span(peaks[0], '.0f')} GB/s, "
                    f"{span(peaks[1], '.1f')} int8 TOPS, measured", fill="#555"))
    for i, name in enumerate(models):
        out.append(text(16, TOP + i * row + row / 2 + 5, data["models"][name]["name"], 13))
    for i, (figure, title) in enumerate(FIGURES):
        out += panel(data, figure, title, LEFT + i * (WIDE + GAP), models, engines)
    return "\n".join(out + ["</svg>", ""])


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else "docs/benchmarks.json"
    target = sys.argv[2] if len(sys.argv) > 2 else "docs/benchmarks.svg"
    with open(source, encoding="utf-8") as f:
        data = json.load(f)
    with open(target, "w", encoding="utf-8") as f:
        f.write(chart(data))


if __name__ == "__main__":
    main()
