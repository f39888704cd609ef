"""Line plots as SVG, without any library: panels side by side, linear or logarithmic axes."""
import math

COLOURS = ("#1f6fb4", "#e6812f", "#3a9b46", "#c0392b", "#7d5ba6", "#8c6d4a", "#17a2a8")
PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP, GAP, BOTTOM = 300, 240, 62, 64, 74, 62


def escape(text):
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(value):
    """1500 -> "1.5k"; what stands at an axis."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * limit or (abs(value) >= limit and value % (limit / 10) == 0):
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


class Axis:
    """Maps values to [0, 1] and has its ticks."""

    def __init__(self, values, log, zero=False, ticks=None, most=None):
        low, high = min(values), max(values)
        self.log = log
        if log:
            low, high = low / 1.05, high * 1.05
            self.low, self.high = math.log10(low), math.log10(high)
            if self.high - self.low < 0.7:
                middle = (self.high + self.low) / 2
                self.low, self.high = middle - 0.35, middle + 0.35
            steps = (1, 2, 5) if self.high - self.low < 3.2 else (1,)
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            self.ticks = ticks or [step * 10.0**decade for decade in decades for step in steps]
            if sum(0 <= self.at(tick) <= 1 for tick in self.ticks) < 4:
                self.ticks = [step * 10.0**decade for decade in decades for step in (1, 1.5, 2, 3, 4, 5, 7)]
        else:
            low, high = (0, most or high * 1.05) if zero else (low, high)
            self.low, self.high = low, high if high > low else low + 1
            step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
            while (self.high - self.low) / step > 5.5:
                step *= 2 if (self.high - self.low) / step < 11 else 2.5
            first = math.ceil(self.low / step - 1e-9)
            self.ticks = ticks or [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        self.ticks = [tick for tick in self.ticks if -1e-6 <= self.at(tick) <= 1 + 1e-6]

    def at(self, value):
        place = math.log10(value) if self.log else value
        return (place - self.low) / (self.high - self.low)


class Panel:
    """title; lines: {label: [(x, y), ...]}; points that are None are left out."""

    def __init__(self, title, x_label, y_label, lines, x_log=True, y_log=True, x_ticks=None, y_most=None):
        self.title, self.x_label, self.y_label = title, x_label, y_label
        self.lines = {label: [point for point in line if None not in point] for label, line in lines.items()}
        points = [point for line in self.lines.values() for point in line]
        self.x = Axis([x for x, _ in points], x_log, ticks=x_ticks)
        self.y = Axis([y for _, y in points], y_log, zero=not y_log, most=y_most)

    def svg(self, left, top, colours):
        def place(point):
            return left + PANEL_WIDTH * self.x.at(point[0]), top + PANEL_HEIGHT * (1 - self.y.at(point[1]))

        out = [f'<text x="{left}" y="{top - 10}" font-weight="bold">{escape(self.title)}</text>']
        for tick in self.y.ticks:
            y = top + PANEL_HEIGHT * (1 - self.y.at(tick))
            out.append(f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>')
            out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
        bottom = top + PANEL_HEIGHT
        for tick in self.x.ticks:
            x = left + PANEL_WIDTH * self.x.at(tick)
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#f0f0f0"/>')
            out.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{short(tick)}</text>')
        out.append(f'<rect x="{left}" y="{top}" width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" fill="none" stroke="#999"/>')
        out.append(f'<text x="{left + PANEL_WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{escape(self.x_label)}</text>')
        middle = top + PANEL_HEIGHT / 2
        out.append(f'<text x="{left - 44}" y="{middle}" text-anchor="middle" '
                   f'transform="rotate(-90 {left - 44} {middle})">{escape(self.y_label)}</text>')
        for label, line in self.lines.items():
            path = " ".join("{:.1f},{:.1f}".format(*place(point)) for point in line)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colours[label]}" stroke-width="2"/>')
            for point in line:
                x, y = place(point)
                out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colours[label]}"/>')
        return "\n".join(out)


def draw(path, title, panels):
    """Panels side by side, with one legend for all of their lines."""
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    width = LEFT + len(panels) * PANEL_WIDTH + (len(panels) - 1) * GAP + 24
    height = TOP + PANEL_HEIGHT + BOTTOM + 22
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>']
    for i, panel in enumerate(panels):
        out.append(panel.svg(LEFT + i * (PANEL_WIDTH + GAP), TOP, colours))
    x = LEFT
    for label in labels:
        y = height - 18
        out.append(f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" stroke="{colours[label]}" stroke-width="3"/>')
        out.append(f'<text x="{x + 28}" y="{y + 4}">{escape(label)}</text>')
        x += 28 + 7 * len(str(label)) + 26
    out.append("</svg>\n")
    path.write_text("\n".join(out), encoding="utf-8")
