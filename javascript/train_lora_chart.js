// A line chart of losses by step.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.chart = (() => {
    const page = window.trainLora;
    const WIDTH = 400;
    const MOST_POINTS = 400;
    const BOX = {left: 44, top: 8, width: 350, height: 130}; // of the chart with labels, which are at both ends of both axes
    const LABELS = [
        [40, 14, "end", ({high}) => high.toFixed(3)],
        [40, 140, "end", ({low}) => low.toFixed(3)],
        [44, 156, "start", () => "1"],
        [394, 156, "end", ({steps}) => String(steps)],
    ];

    // At most about MOST_POINTS values at a regular stride, and the last, as [index, value].
    function thinned(values) {
        const stride = Math.ceil(values.length / MOST_POINTS) || 1;
        return [...values.entries()].filter(([place]) => place % stride === 0 || place === values.length - 1);
    }

    function points({losses, low, high, first, steps}, box) {
        const x = (place) => box.left + box.width * (first + place) / Math.max(steps - 1, 1);
        const y = (loss) => box.top + box.height * (high - loss) / ((high - low) || 1);
        return thinned(losses).map(([place, loss]) => `${x(place).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
    }

    // `of` tells `{lines, low, high, first, steps}`: lines by class; losses begin with step `first` (from 0) of `steps`.
    function chart(of, needed, height, box, labels) {
        const {node, show} = page.dom.view("svg", "train-lora-chart", {
            attributes: () => ({viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": "Loss by step"}),
            parts: labels.map(([x, y, anchor, text]) => page.dom.view("text", "", {
                text, attributes: () => ({x, y, "text-anchor": anchor}),
            })),
            items: ({lines, ...axes}) => Object.entries(lines).map(([name, losses]) => ({name, losses, ...axes})),
            make: ({name}) => page.dom.view("polyline", name, {attributes: (line) => ({points: points(line, box)})}),
            key: ({name}) => name,
        });
        return {node, needed, show: (shown) => show(of(shown))};
    }

    return {
        labelled: (of, needed) => chart(of, needed, 160, BOX, LABELS),
        small: (of, needed) => chart(of, needed, 80, {left: 4, top: 4, width: 392, height: 72}, []),
    };
})();
