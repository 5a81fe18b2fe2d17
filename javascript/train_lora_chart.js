// A line chart of losses by step.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.chart = (() => {
    const page = window.trainLora;
    const WIDTH = 400;
    const MOST_POINTS = 400;

    // At most about MOST_POINTS values at a regular stride, and the last, as [index, value].
    function thinned(values) {
        const stride = Math.ceil(values.length / MOST_POINTS) || 1;
        const found = [];
        for (let place = 0; place < values.length; place += stride) found.push([place, values[place]]);
        if ((values.length - 1) % stride) found.push([values.length - 1, values[values.length - 1]]);
        return found;
    }

    function label(x, y, anchor) {
        return page.dom.svg("text", {x, y, "text-anchor": anchor});
    }

    // A view of `{lines, low, high, first, steps}`: lines by class; losses begin with step `first` (from 0) of `steps`.
    function chart(height, box) {
        const node = page.dom.svg("svg", {
            viewBox: `0 0 ${WIDTH} ${height}`, class: "train-lora-chart", role: "img", "aria-label": "Loss by step",
        });
        const drawn = {};
        function show({lines, low, high, first, steps}) {
            const x = (place) => box.left + box.width * (first + place) / Math.max(steps - 1, 1);
            const y = (loss) => box.top + box.height * (high - loss) / ((high - low) || 1);
            for (const [name, losses] of Object.entries(lines)) {
                if (!drawn[name]) {
                    drawn[name] = page.dom.svg("polyline", {class: name});
                    node.append(drawn[name]);
                }
                const points = thinned(losses).map(([place, loss]) => `${x(place).toFixed(1)},${y(loss).toFixed(1)}`);
                page.dom.setAttribute(drawn[name], "points", points.join(" "));
            }
        }
        return {node, show};
    }

    // The chart with labels at both ends of both axes.
    function labelled() {
        const {node, show} = chart(160, {left: 44, top: 8, width: 350, height: 130});
        const labels = [label(40, 14, "end"), label(40, 140, "end"), label(44, 156, "start"), label(394, 156, "end")];
        node.append(...labels);
        return {
            node,
            show(shown) {
                show(shown);
                [shown.high.toFixed(3), shown.low.toFixed(3), "1", String(shown.steps)].forEach((text, place) => {
                    page.dom.setText(labels[place], text);
                });
            },
        };
    }

    const small = () => chart(80, {left: 4, top: 4, width: 392, height: 72});

    return {labelled, small};
})();
