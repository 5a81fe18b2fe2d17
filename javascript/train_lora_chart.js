// A small line chart of losses by step.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.chart = (() => {
    const page = window.trainLora;
    const [WIDTH, HEIGHT] = [400, 80];
    const BOX = {left: 4, top: 4, width: 392, height: 72};
    const MOST_POINTS = 400;

    // At most about MOST_POINTS values at a regular stride, and the last, as [index, value].
    function thinned(values) {
        const stride = Math.ceil(values.length / MOST_POINTS) || 1;
        return [...values.entries()].filter(([place]) => place % stride === 0 || place === values.length - 1);
    }

    function points({losses, low, high}) {
        const x = (place) => BOX.left + BOX.width * place / Math.max(losses.length - 1, 1);
        const y = (loss) => BOX.top + BOX.height * (high - loss) / ((high - low) || 1);
        return thinned(losses).map(([place, loss]) => `${x(place).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
    }

    // `of` tells `{losses, low, high}`.
    function small(of, needed) {
        const {node, show} = page.dom.view("svg", "train-lora-chart", {
            attributes: () => ({viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Loss by step"}),
            parts: [page.dom.view("polyline", "train-lora-mean", {attributes: (line) => ({points: points(line)})})],
        });
        return {node, needed, show: (shown) => show(of(shown))};
    }

    return {small};
})();
